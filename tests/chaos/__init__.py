"""Jobs killed at every step of every file operation, and what must be left of them."""
