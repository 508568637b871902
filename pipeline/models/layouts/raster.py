"""Where the cells of an image's token grid lie among its tokens, which follow each other block by block.

Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import TokenizerError
from pipeline.models.layouts.cuts import GridCut
from pipeline.models.layouts.known import LAYOUTS, layout_of
from pipeline.models.layouts.scales import Scales

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.records import Geometry


def raster_places(geometry: Geometry) -> npt.NDArray[np.int64]:
    """int64 [h * w]: which token is in each cell of the grid, row by row.

    Raises TokenizerError, naming the layout, where the tokens are not those of one grid.
    """
    import numpy as np  # layouts are asked for by commands that answer at once

    layout = layout_of(geometry)
    if not isinstance(layout, GridCut) or not layout.decodable:
        raise TokenizerError(f"layout {geometry.layout!r} {_why(layout)}")
    h, w = geometry.grid
    blocks = layout.blocks(h, w)
    return np.argsort([row * w + column for cells in blocks for row in cells.rows for column in cells.columns])


def _why(layout: GridCut | Scales | None) -> str:
    if layout is None:
        return f"is none that this version turns into a grid (it knows {', '.join(LAYOUTS)})"
    if isinstance(layout, Scales):
        return f"has a grid for each of its {len(layout.patch_nums)} scales, and no single one"
    return "leaves cells of the grid out"
