"""Layouts as a store says them."""

import pytest

from pipeline.models.layouts.known import layout_of
from pipeline.models.layouts.scales import Scales
from pipeline.records import Geometry


@pytest.mark.parametrize(
    ("layout", "grid", "lengths", "shapes"),
    [
        ("raster", (2, 3), (6,), [("grid rows 0 to 1, columns 0 to 2", 3)]),
        (
            "diagonal",
            (3, 5),
            (2, 6),
            [("grid rows 0 to 0, columns 0 to 1", 2), ("grid rows 1 to 2, columns 2 to 4", 3)],
        ),
        (
            "quadrants",
            (1, 3),
            (0, 0, 1, 2),
            [None, None, ("grid rows 0 to 0, columns 0 to 0", 1), ("grid rows 0 to 0, columns 1 to 2", 2)],
        ),
        ("multiscale", (3, 3), (1, 9), [("a scale of 1 x 1", 1), ("a scale of 3 x 3", 3)]),
    ],
)
def test_blocks_have_the_shapes_of_their_layout(
    layout: str, grid: tuple[int, int], lengths: tuple[int, ...], shapes: list[tuple[str, int] | None]
) -> None:
    found = layout_of(Geometry(image_size=(8, 8), grid=grid, layout=layout, block_lengths=lengths, decodable=True))
    assert found is not None
    assert (found.name, found.block_lengths(grid)) == (layout, lengths)
    said = [found.shape(block, grid) for block in range(len(lengths))]
    assert [shape and (shape.title, shape.columns) for shape in said] == shapes


@pytest.mark.parametrize(
    ("layout", "grid", "lengths"),
    [
        ("quadrants", (2, 2), (4,)),  # not what this version calls quadrants
        ("spiral", (2, 2), (4,)),
        ("multiscale", (2, 2), (1, 5)),
        ("multiscale", (3, 3), (1, 4)),
    ],
)
def test_others_are_not_known(layout: str, grid: tuple[int, int], lengths: tuple[int, ...]) -> None:
    assert (
        layout_of(Geometry(image_size=(8, 8), grid=grid, layout=layout, block_lengths=lengths, decodable=True)) is None
    )


def test_scales_are_restored_with_their_sides() -> None:
    geometry = Geometry(image_size=(64, 64), grid=(4, 4), layout="multiscale", block_lengths=(1, 4, 16), decodable=True)
    assert layout_of(geometry) == Scales((1, 2, 4))
