import itertools

import pytest
import torch

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.layouts.cuts import CUTS, cut_named

ALL_GRIDS = list(itertools.product(range(1, 8), repeat=2))


def numbered(h: int, w: int) -> torch.Tensor:
    """Two grids whose cells hold their flat index, the second one shifted by 1000."""
    cells = torch.arange(h * w).reshape(h, w)
    return torch.stack([cells, cells + 1000])


@pytest.mark.parametrize(
    ("name", "grid", "blocks"),
    [
        ("raster", (2, 3), [[0, 1, 2, 3, 4, 5]]),
        ("quadrants", (4, 4), [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]),
        ("quadrants", (3, 3), [[0], [1, 2], [3, 6], [4, 5, 7, 8]]),  # the odd row and column go last
        ("quadrants", (2, 4), [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("quadrants", (1, 4), [[], [], [0, 1], [2, 3]]),  # h // 2 = 0: nothing above the split
        ("quadrants", (4, 1), [[], [0, 1], [], [2, 3]]),
        ("diagonal", (4, 4), [[0, 1, 4, 5], [10, 11, 14, 15]]),
        ("diagonal", (3, 5), [[0, 1], [7, 8, 9, 12, 13, 14]]),
        ("diagonal", (1, 1), [[], [0]]),
    ],
)
def test_the_blocks_of_a_grid(name: str, grid: tuple[int, int], blocks: list[list[int]]) -> None:
    layout = cut_named(name)
    first, second = zip(*(block.tolist() for block in layout.split(numbered(*grid))), strict=True)
    assert list(first) == blocks
    assert list(second) == [[cell + 1000 for cell in block] for block in blocks]
    assert layout.block_lengths(grid) == tuple(map(len, blocks))


@pytest.mark.parametrize("name", [name for name, layout in CUTS.items() if layout.decodable])
def test_decodable_layouts_hold_each_cell_once_and_join_undoes_split(name: str) -> None:
    for grid in ALL_GRIDS:
        layout, idx_Bhw = cut_named(name), numbered(*grid)
        idx_Bl = layout.split(idx_Bhw)
        assert torch.cat(idx_Bl, dim=1)[0].sort().values.tolist() == list(range(grid[0] * grid[1]))
        assert torch.equal(layout.join(idx_Bl, grid), idx_Bhw)


@pytest.mark.parametrize("name", CUTS)
def test_cells_follow_in_row_major_order_and_never_repeat(name: str) -> None:
    for grid in ALL_GRIDS:
        blocks = [block[0].tolist() for block in CUTS[name].split(numbered(*grid))]
        assert all(block == sorted(block) for block in blocks)
        cells = [cell for block in blocks for cell in block]
        assert len(set(cells)) == len(cells)
        assert CUTS[name].block_lengths(grid) == tuple(map(len, blocks))


def test_split_and_join_give_int64_whatever_they_get() -> None:
    layout = cut_named("quadrants")
    idx_Bhw = numbered(4, 4)[:1]
    blocks = layout.split(idx_Bhw.to(torch.uint8))
    assert {block.dtype for block in blocks} == {torch.int64}
    joined = layout.join([block.to(torch.uint16) for block in blocks], (4, 4))
    assert joined.dtype == torch.int64
    assert torch.equal(joined, idx_Bhw)


def test_a_layout_that_leaves_cells_out_says_what_to_use_instead() -> None:
    diagonal = cut_named("diagonal")
    with pytest.raises(TokenizerError, match=r"'diagonal' leaves cells out.*: raster, quadrants"):
        diagonal.join(diagonal.split(numbered(4, 4)), (4, 4))


@pytest.mark.parametrize(
    "blocks",
    [
        [],
        [torch.zeros(2, 15, dtype=torch.int64)],  # one token short
        [torch.zeros(2, 8, dtype=torch.int64)] * 2,  # right in sum, wrong in parts
        [torch.zeros(16, dtype=torch.int64)],  # no batch dimension
    ],
)
def test_blocks_that_do_not_fit_the_grid_are_refused(blocks: list[torch.Tensor]) -> None:
    with pytest.raises(TokenizerError, match=r"do not fit layout 'raster' on grid \(4, 4\).*\(16,\)"):
        cut_named("raster").join(blocks, (4, 4))


def test_an_unknown_layout_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no block layout 'spiral'; known: raster, quadrants, diagonal"):
        cut_named("spiral")
