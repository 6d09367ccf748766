"""Groups of commands, each a translation of verbs; `cli` registers them."""
