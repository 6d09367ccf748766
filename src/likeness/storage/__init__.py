"""Where bytes and facts of one installation are kept."""
