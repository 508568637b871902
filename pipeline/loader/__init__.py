"""Batches of tokens for autoregressive training.

epoch order (a pure function of seed and epoch) ──▶ this rank's rows ──▶ TokenBatch
"""

from pipeline.loader.loader import TokenLoader
from pipeline.store.batch import TokenBatch

__all__ = ["TokenBatch", "TokenLoader"]
