"""What a rule is that makes embedding sequences of block index lists.

Shape letters: B images, L_i tokens of block i, K codes, C their length.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor


class Rule(Protocol):
    """How `idx_Bl` becomes `x_BLC`, given the codebook and perhaps some arrays of the tokenizer.

    A store has the codebook, and the arrays in `tokens.zarr/rule/<name>`: a reader that knows the rule needs no model.
    """

    @property
    def name(self) -> str:
        """What stores call it: `var_input` in store.json."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that it needs beside the codebook."""

    @property
    def picks_rows(self) -> bool:
        """Whether x_BLC is nothing but a row of the codebook for each token, in order.

        Such a rule gives the same from a codebook that was rounded to the dtype asked for, or put behind another one.
        Others compute, and are given float32.
        """

    def sequence_length(self, block_lengths: Sequence[int]) -> int:
        """L of x_BLC for blocks of L_i tokens."""

    def apply(self, idx_Bl: Sequence[Tensor], codebook_KC: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """Blocks int [B, L_i] to the embedding sequence [B, L, C], in the dtype of the codebook and on its device.

        Args:
            arrays: those of floats on the device of the codebook, those of integers on the CPU.

        Raises TokenizerError for blocks that it cannot take and for an index outside the codebook.
        """
