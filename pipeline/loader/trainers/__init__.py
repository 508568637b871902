"""Loaders in the trainers that people have, a module for each.

torchtitan      `TokenSequences`, a data loader of next-token pairs
"""
