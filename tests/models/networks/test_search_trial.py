"""A search that finds other codes is not used; one that rounds otherwise is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.networks.multiscale import MultiscaleQuantizer
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.networks.search import Search, nearest_codes
from pipeline.models.networks.search_trial import use_if_equal


def plain() -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(50, 24)


def cosine() -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(50, 24, cosine=True)


def scales() -> MultiscaleQuantizer:
    torch.manual_seed(0)
    return MultiscaleQuantizer(50, 24, patch_nums=(1, 2, 5), cosine=True)


def one_code() -> VectorQuantizer:
    return VectorQuantizer(1, 24)


def copies() -> VectorQuantizer:
    """Of one code: every search but one that takes the lowest index finds another."""
    made = plain()
    with torch.no_grad():
        made.embedding.weight[1:] = made.embedding.weight[0]
    return made


def backwards(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    """Sums in another order."""
    return nearest_codes(z_NC.flip(1), codebook_KC.flip(1))


def next_one(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    return (nearest_codes(z_NC, codebook_KC) + 1) % len(codebook_KC)


def beyond(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    return nearest_codes(z_NC, codebook_KC) + len(codebook_KC)


def below(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    return nearest_codes(z_NC, codebook_KC) - len(codebook_KC)


def bfloat16(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    return nearest_codes(z_NC.bfloat16(), codebook_KC.bfloat16())


def wrong_in_one_place(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    found_N = nearest_codes(z_NC, codebook_KC)
    found_N[-1] = (found_N[-1] + 1) % len(codebook_KC)
    return found_N


def wrong_for_many(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    """Only the finest scale has so many vectors."""
    return next_one(z_NC, codebook_KC) if len(z_NC) > 1000 else nearest_codes(z_NC, codebook_KC)


def failing(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    raise RuntimeError("no C compiler")


def speechless(z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
    raise NotImplementedError


@pytest.mark.parametrize("made", [plain, cosine, scales, one_code, copies])
def test_a_search_that_rounds_otherwise_is_used(made: Callable[[], VectorQuantizer]) -> None:
    quantizer, state = made(), torch.get_rng_state()
    use_if_equal(backwards, quantizer, 60, (5, 5))
    assert quantizer.nearest is backwards
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("made", [plain, cosine, scales])
@pytest.mark.parametrize(
    ("search", "why"),
    [
        (next_one, "finds other codes for"),
        (beyond, "finds other codes for"),
        (below, "finds other codes for"),
        (bfloat16, "finds other codes for"),
        (wrong_in_one_place, "finds other codes for 1 of"),
        (wrong_for_many, "of 1,500 vectors"),
        (failing, "no C compiler"),
        (speechless, "NotImplementedError"),
    ],
)
def test_another_search_is_left_alone(made: Callable[[], VectorQuantizer], search: Search, why: str) -> None:
    quantizer = made()
    with pytest.raises(TokenizerError, match=why):
        use_if_equal(search, quantizer, 60, (5, 5))
    assert quantizer.nearest is nearest_codes


def test_all_that_a_quantizer_finds_comes_from_its_search() -> None:
    z_BChw = torch.randn(2, 24, 5, 5)
    for quantizer in (plain(), scales()):
        quantizer.nearest = lambda z_NC, codebook_KC: z_NC.new_full((len(z_NC),), 7, dtype=torch.int64)
        found = quantizer.search(z_BChw)
        for idx in (*(found if isinstance(found, list) else [found]), quantizer(z_BChw)[2]):
            assert (idx == 7).all()
