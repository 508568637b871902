"""The rule of most tokenizers: a row of the codebook for each token."""

import pytest
import torch

from pipeline.errors import TokenizerError
from pipeline.models.rules.known import RULES
from pipeline.models.rules.lookup import LOOKUP, code_indices, lookup

TABLE = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))


def test_rules_are_known_by_their_names() -> None:
    assert all(name == rule.name for name, rule in RULES.items())
    assert RULES["lookup"] is LOOKUP


def test_blocks_become_rows_one_behind_the_other() -> None:
    idx_Bl = [torch.tensor([[0, 299], [7, 7]]), torch.tensor([[5], [6]], dtype=torch.uint8)]
    x_BLC = LOOKUP.apply(idx_Bl, TABLE, {})
    assert torch.equal(x_BLC, TABLE[torch.tensor([[0, 299, 5], [7, 7, 6]])])
    assert x_BLC.shape[1] == LOOKUP.sequence_length([2, 1])


@pytest.mark.parametrize("index", [-1, 300])
def test_an_index_outside_the_codebook_is_refused(index: int) -> None:
    with pytest.raises(TokenizerError, match=rf"code index {index} is not in 0 \.\. 299"):
        lookup(torch.tensor([[3, index]]), TABLE)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.int32, torch.int64])
def test_any_integers_are_indices(dtype: torch.dtype) -> None:
    assert torch.equal(lookup(torch.tensor([1, 2]).to(dtype), TABLE), TABLE[1:3])


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.complex64])
def test_other_numbers_are_none(dtype: torch.dtype) -> None:
    with pytest.raises(TokenizerError, match="code indices must be integers, not"):
        code_indices(torch.ones(2, dtype=dtype))
