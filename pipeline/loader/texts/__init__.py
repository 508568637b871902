"""Texts beside images: their ids, made once and kept, and sequences of both.

kept member `txt` ──▶ a tokenizer of texts ──▶ folder of ids, mapped into memory ──▶ TextTokens ─┐
TokenBatch: the tokens of images ─────────────────────────────────────────▶ TextImageSequences ◀─┘ ──▶ TextImageBatch
"""
