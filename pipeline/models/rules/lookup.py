"""From code indices to embeddings: the one lookup that the model and the store share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import TokenizerError


def listed(idx_Bl: Sequence[Tensor]) -> Sequence[Tensor]:
    """A list of blocks as it is.

    Raises TokenizerError for one tensor: its images would pass for blocks, and those of a tensor [B, V, L] or [B, h, w]
    even have the shape of some.
    """
    if isinstance(idx_Bl, Tensor):
        raise TokenizerError(
            f"expected a list of blocks [B, L_i], not one tensor of shape {list(idx_Bl.shape)}: give batch.idx_Bl, or "
            "[tensor] for a single block"
        )
    return idx_Bl


def code_indices(indices: Tensor) -> Tensor:
    """Indices of any integer dtype as int64, the only one that all of torch understands.

    Indexing reads uint8 as a mask and takes no int16, uint16 or uint32.

    Raises TokenizerError for another kind of number.
    """
    if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
        raise TokenizerError(f"code indices must be integers, not {indices.dtype}")
    return indices.long()


def lookup(indices: Tensor, codebook_KC: Tensor) -> Tensor:
    """The codes [..., C] of indices [...] of any integer dtype, on the codebook's device.

    The range check costs one pass over the indices, and never waits for a GPU: indices that come from a CPU are
    checked before they move, and those on a GPU by an assertion there, which ends the process when it next waits for
    the GPU. Without it an index out of range would read foreign memory.

    Raises TokenizerError for floating and bool indices, and for one outside 0 .. K-1 that is not on a GPU.
    """
    indices = code_indices(indices)
    _check_range(indices, codebook_KC.shape[0])
    return F.embedding(indices.to(codebook_KC.device), codebook_KC)


def _check_range(indices: Tensor, vocab_size: int) -> None:
    if indices.is_cuda:
        inside = ((indices >= 0) & (indices < vocab_size)).all()
        torch._assert_async(inside, f"a code index is not in 0 .. {vocab_size - 1} (vocab_size {vocab_size})")
    elif indices.numel() > 0:
        for index in torch.stack(torch.aminmax(indices)).tolist():
            if not 0 <= index < vocab_size:
                raise TokenizerError(
                    f"code index {index} is not in 0 .. {vocab_size - 1} (vocab_size {vocab_size}); were these "
                    "tokens made by another tokenizer?"
                )


@dataclass(frozen=True)
class Lookup:
    """The `Rule` of most tokenizers: a row of the codebook for each token, block after block."""

    name: str = "lookup"
    arrays: tuple[str, ...] = ()
    picks_rows: bool = True

    def sequence_length(self, block_lengths: Sequence[int]) -> int:
        """L, the sum of the L_i."""
        return sum(block_lengths)

    def apply(self, idx_Bl: Sequence[Tensor], codebook_KC: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """Blocks of [B, L_i] to [B, L, C]. Raises TokenizerError as `lookup` does."""
        return lookup(torch.cat(list(idx_Bl), dim=1), codebook_KC)


LOOKUP = Lookup()
