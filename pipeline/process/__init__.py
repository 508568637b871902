"""This process: which one it is, and what is set or caught for all of it."""
