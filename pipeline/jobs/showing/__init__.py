"""`vqtok show`: all that a store knows of a key."""
