"""Groups of commands; `cli` registers them."""
