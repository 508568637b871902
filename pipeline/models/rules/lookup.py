"""From code indices to embeddings: the one lookup that the model and the store share."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import TokenizerError


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

    The range check costs one pass over the indices. On an accelerator it also waits for their values,
    because an index out of range would end the process there, or read foreign memory; indices that come
    from a CPU are checked before they move, without waiting.

    Raises TokenizerError for floating and bool indices, and for one outside 0 .. K-1.
    """
    indices = code_indices(indices)
    vocab_size = codebook_KC.shape[0]
    if indices.numel() > 0:
        for index in torch.stack(torch.aminmax(indices)).tolist():
            if not 0 <= index < vocab_size:
                raise TokenizerError(
                    f"code index {index} is not in 0 .. {vocab_size - 1} (vocab_size {vocab_size}); were these "
                    "tokens made by another tokenizer?"
                )
    return F.embedding(indices.to(codebook_KC.device), codebook_KC)
