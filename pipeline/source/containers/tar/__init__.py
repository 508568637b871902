"""Tars: each member once, or an error; from the beginning, or from any sample on."""
