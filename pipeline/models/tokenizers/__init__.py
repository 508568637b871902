"""What tokenization knows of a tokenizer, and the kinds that there are."""
