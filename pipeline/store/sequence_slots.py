"""Where ids stand in the sequence of an image. Without torch.

bos  label  t t t t eol  t t t t eol  t t t t eol  eos      a grid of three rows; only the tokens are always there
"""

import numpy as np

from pipeline.store.types import Array

LABEL, BOS, EOL, EOS, OTHERS = range(5)
"""Columns behind the tokens of the table that sequences are picked from, and how many there are."""


def sequence_slots(tokens: Array, line: int, *, bos: bool, label: bool, eol: bool, eos: bool) -> Array:
    """Which column of the table each id of a sequence is, int64 [S]: token i is column i, a label column L + LABEL.

    Args:
        tokens: int64 [L], the tokens in the order that they stand in.
        line: how many of them stand before each `eol`.
    """
    L = len(tokens)
    if eol:
        tokens = np.pad(tokens.reshape(-1, line), ((0, 0), (0, 1)), constant_values=L + EOL).reshape(-1)
    before = [L + column for column, given in ((BOS, bos), (LABEL, label)) if given]
    after = [L + EOS] if eos else []
    return np.concatenate([before, tokens, after]).astype(np.int64)
