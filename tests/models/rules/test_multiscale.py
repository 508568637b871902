"""What a model is taught on where scales add up: the sum of the coarser ones at the size of the next."""

import pytest
import torch
from published import Scales
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.networks.multiscale import MultiscaleQuantizer
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.multiscale import MULTISCALE

C, K = 6, 40


def made(sides: tuple[int, ...]) -> tuple[Embedder, Scales]:
    torch.manual_seed(0)
    model = MultiscaleQuantizer(K, C, patch_nums=sides)
    torch.nn.init.normal_(model.embedding.weight)
    arrays = {name: torch.from_numpy(array) for name, array in model.rule_arrays().items()}
    assert tuple(arrays) == MULTISCALE.arrays
    codes_KC = model.embedding.weight.detach()
    phi = [*zip(arrays["phi_weight"], arrays["phi_bias"], strict=True)]
    return Embedder(MULTISCALE, codes_KC, arrays), Scales(codes_KC, phi, sides)


def blocks(B: int, sides: tuple[int, ...]) -> list[Tensor]:
    return [torch.randint(0, K, (B, p * p), dtype=torch.int32) for p in sides]


@pytest.mark.parametrize("sides", [(1, 2, 3, 4, 5, 6, 8, 10, 13, 16), (2, 4), (1,)])
def test_it_is_what_the_paper_says(sides: tuple[int, ...]) -> None:
    apply, paper = made(sides)
    idx_Bl = blocks(3, sides)
    x_BLC = apply(idx_Bl)
    length = MULTISCALE.sequence_length([p * p for p in sides])
    assert (x_BLC.dtype, tuple(x_BLC.shape)) == (torch.float32, (3, length, C))
    assert length == sum(p * p for p in sides[1:])
    if length:
        for row in range(3):
            grids = [block[row].long().reshape(p, p) for block, p in zip(idx_Bl, sides, strict=True)]
            torch.testing.assert_close(x_BLC[row], paper.var_input(grids))


def test_it_is_float32_under_autocast_and_rounded_once() -> None:
    apply, _ = made((1, 2, 4))
    idx_Bl = blocks(2, (1, 2, 4))
    exact = apply(idx_Bl)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply(idx_Bl), exact)
    assert torch.equal(apply(idx_Bl, torch.bfloat16), exact.bfloat16())


BAD = {
    "other scales": (blocks(1, (1, 3, 4)), r"scales \(1, 3, 4\), where the tokenizer has \(1, 2, 4\)"),
    "too few": (blocks(1, (1, 2)), r"scales \(1, 2\), where"),
    "no squares": ([torch.zeros(1, 5, dtype=torch.long)], "blocks of 5 tokens are no squares"),
    "outside": ([torch.zeros(1, 1).long(), torch.full((1, 4), K), torch.zeros(1, 16).long()], f"code index {K} is not"),
    "floats": ([torch.zeros(1, 1), *blocks(1, (2, 4))], "must be integers"),
}


@pytest.mark.parametrize(("idx_Bl", "message"), BAD.values(), ids=BAD)
def test_blocks_it_cannot_take_are_refused(idx_Bl: list[Tensor], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        made((1, 2, 4))[0](idx_Bl)
