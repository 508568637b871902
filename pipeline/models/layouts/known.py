"""All layouts that a store can have been made with, as far as this version knows them."""

from collections.abc import Callable

from pipeline.errors import TokenizerError
from pipeline.models.layouts import scales
from pipeline.models.layouts.cuts import CUTS, GridCut
from pipeline.models.layouts.scales import Scales, sides_of
from pipeline.records import Geometry

KnownLayout = GridCut | Scales

LAYOUTS: dict[str, Callable[[tuple[int, ...]], KnownLayout]] = {
    **{cut.name: lambda lengths, cut=cut: cut for cut in CUTS.values()},  # type: ignore[misc]
    scales.NAME: lambda lengths: Scales(sides_of(lengths)),
}
"""By the name in `geometry.layout`: makes one of the lengths of its blocks, which tell its parameters."""


def layout_of(geometry: Geometry) -> KnownLayout | None:
    """The layout of a store; None for one that is not known, or means something else by the name."""
    make = LAYOUTS.get(geometry.layout)
    if make is None:
        return None
    try:
        layout = make(geometry.block_lengths)
        same = layout.block_lengths(geometry.grid) == geometry.block_lengths
    except TokenizerError:
        return None
    return layout if same else None
