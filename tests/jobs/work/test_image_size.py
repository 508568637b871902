"""Image sizes that a tokenizer cannot take."""

import pytest

from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.work.image_size import taking
from pipeline.models.layouts.scales import Scales


@pytest.mark.parametrize(
    ("size", "near"), [((30, 15), "28 x 12 or 32 x 16"), ((3, 9), "4 x 8 or 4 x 12"), ((1, 1), "4 x 4")]
)
def test_sizes_near_by_are_named(size: tuple[int, int], near: str) -> None:
    def refuse() -> None:
        raise TokenizerError("no multiple of 4")

    with pytest.raises(ConfigError) as caught:
        taking(size, refuse, 4, "the tokenizer in x")
    message = f"image.size: the tokenizer in x cannot take it: no multiple of 4; such as {near}"
    assert str(caught.value) == message
    assert taking(size, lambda: 7, 4, "it") == 7


def test_a_size_is_no_remedy_for_itself() -> None:
    layout = Scales((1, 2, 3))
    with pytest.raises(ConfigError, match=r"end in a grid of 3 x 3 tokens.*; a token is 16 pixels along each side$"):
        taking((64, 64), lambda: layout.block_lengths((4, 4)), 16, "the tokenizer in x")
