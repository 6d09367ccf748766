"""URLs and addresses of others: which are accepted, and how they are called."""
