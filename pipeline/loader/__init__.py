"""Batches of tokens for autoregressive training.

epoch order (a pure function of seed and epoch) ──▶ this rank's rows ──▶ TokenBatch
rows that a sampler of torch picks ──▶ TokenDataset ──▶ TokenBatch
several loaders, in given proportions ──▶ MixedBatch
a batch, and the ids of texts ──▶ TextImageBatch
"""

from pipeline.loader.collating import explain_collating
from pipeline.loader.dataset import TokenDataset
from pipeline.loader.loader import TokenLoader
from pipeline.loader.mixtures.loader import MixtureLoader
from pipeline.loader.mixtures.stores import MixedBatch
from pipeline.loader.selecting import RowRecord, rows_where, rows_with_label, split_rows
from pipeline.loader.texts.sequences import TextImageBatch, TextImageSequences
from pipeline.loader.texts.tokens import TextTokens
from pipeline.store.batch import TokenBatch

__all__ = [
    "MixedBatch",
    "MixtureLoader",
    "RowRecord",
    "TextImageBatch",
    "TextImageSequences",
    "TextTokens",
    "TokenBatch",
    "TokenDataset",
    "TokenLoader",
    "rows_where",
    "rows_with_label",
    "split_rows",
]

explain_collating()
