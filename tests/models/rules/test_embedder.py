"""A rule with its tables, in every dtype that is asked for."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.lookup import LOOKUP

TABLE = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
IDX_Bl = [torch.tensor([[0, 15], [7, 7]]), torch.tensor([[5], [6]])]


class Scaled:
    """Not rows of the codebook: each is multiplied, and the first token has none."""

    name, arrays, picks_rows = "scaled", ("factor",), False

    def sequence_length(self, block_lengths: Sequence[int]) -> int:
        return sum(block_lengths) - 1

    def apply(self, idx_Bl: Sequence[Tensor], codebook_KC: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        assert codebook_KC.dtype == arrays["factor"].dtype == torch.float32
        return codebook_KC[torch.cat(list(idx_Bl), dim=1)][:, 1:] * arrays["factor"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_lookup_is_the_same_before_and_after_rounding(dtype: torch.dtype) -> None:
    x_BLC = Embedder(LOOKUP, TABLE, {})(IDX_Bl, dtype)
    assert torch.equal(x_BLC, TABLE[torch.cat(IDX_Bl, dim=1)].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_rule_computes_is_rounded_once(dtype: torch.dtype) -> None:
    embedder = Embedder(Scaled(), TABLE, {"factor": torch.tensor([0.1, 1, 2, 3])})
    expected = TABLE[torch.cat(IDX_Bl, dim=1)][:, 1:] * torch.tensor([0.1, 1, 2, 3])
    for _ in range(2):
        assert torch.equal(embedder(IDX_Bl, dtype), expected.to(dtype))


def test_no_blocks_are_no_sequence() -> None:
    with pytest.raises(TokenizerError, match="not an empty one"):
        Embedder(LOOKUP, TABLE, {})([])
