import pytest
import torch

from pipeline.errors import TokenizerError
from pipeline.models.layouts.layout import BlockLayout
from pipeline.models.layouts.scales import Scales, sides_of

LAYOUT: BlockLayout = Scales((1, 2, 4))


def test_a_block_for_each_scale() -> None:
    assert (LAYOUT.name, LAYOUT.decodable, LAYOUT.block_lengths((4, 4))) == ("multiscale", True, (1, 4, 16))
    grids = [torch.arange(3 * p * p, dtype=torch.int32).reshape(3, p, p) for p in (1, 2, 4)]
    blocks = LAYOUT.split(grids)
    assert [(block.dtype, tuple(block.shape)) for block in blocks] == [(torch.int64, (3, n)) for n in (1, 4, 16)]
    for count in (1, 2, 3):  # the first ones are a coarser image
        assert all(map(torch.equal, LAYOUT.join(blocks[:count], (4, 4)), [grid.long() for grid in grids[:count]]))


def test_other_grids_and_blocks_are_refused() -> None:
    for grid in [(4, 5), (2, 2)]:
        with pytest.raises(TokenizerError, match=r"scales 1, 2, 4 end in a grid of 4 x 4 tokens, and this image has"):
            LAYOUT.block_lengths(grid)
    for lengths in ([], [1, 4, 15], [4], [1, 4, 16, 1]):
        with pytest.raises(TokenizerError, match=r"not of the first scales of 1, 2, 4"):
            LAYOUT.join([torch.zeros(2, length, dtype=torch.long) for length in lengths])


def test_sides_are_read_off_block_lengths() -> None:
    assert sides_of((1, 4, 9, 256)) == (1, 2, 3, 16)
    for lengths in ((1, 5), (0,), ()):
        with pytest.raises(TokenizerError, match="no squares"):
            sides_of(lengths)
