"""Tokenizer folders, as far as they can be read without torch."""
