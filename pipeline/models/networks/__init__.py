"""The torch modules that tokenizers are made of, and how their codes are searched and learned."""
