"""Loaders in the trainers that people have, a module for each.

huggingface     `TokenTrainer`, the Trainer of transformers over a TokenLoader; needs transformers
lightning       `TokenDataModule`, a LightningDataModule; needs lightning
torchtitan      `TokenSequences`, a data loader of next-token pairs
"""
