"""Batches of tokens for autoregressive training.

epoch order (a pure function of seed and epoch) ──▶ this rank's rows ──▶ TokenBatch
rows that a sampler of torch picks ──▶ TokenDataset ──▶ TokenBatch
several loaders, in given proportions ──▶ MixedBatch
"""

from pipeline.loader.dataset import TokenDataset
from pipeline.loader.loader import TokenLoader
from pipeline.loader.mixed import MixedBatch
from pipeline.loader.mixture import MixtureLoader
from pipeline.loader.rows import RowRecord, rows_where, rows_with_label, split_rows
from pipeline.store.batch import TokenBatch

__all__ = [
    "MixedBatch",
    "MixtureLoader",
    "RowRecord",
    "TokenBatch",
    "TokenDataset",
    "TokenLoader",
    "rows_where",
    "rows_with_label",
    "split_rows",
]
