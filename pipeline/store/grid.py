"""Tokens as the grid of their image, whatever the block layout.

Shape letters: L tokens of an image, h and w sides of its grid.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.layouts.raster import raster_places
from pipeline.records import Geometry


def grid_of(tokens: Tensor, geometry: Geometry) -> Tensor:
    """Tokens [..., L] in the order of their blocks as grids [..., h, w], on the same device.

    Raises TokenizerError, naming the layout, where the tokens are not those of one grid.
    """
    places = _places(geometry, tokens.device)
    in_order = tokens if places is None else tokens.index_select(-1, places)
    return in_order.reshape(*tokens.shape[:-1], *geometry.grid)


@lru_cache(maxsize=64)
def _places(geometry: Geometry, device: torch.device) -> Tensor | None:
    """int64 [h * w]: which token is in each cell of the grid; None where they follow each other as the cells do."""
    try:
        places = raster_places(geometry)
    except TokenizerError as error:
        raise TokenizerError(f"{error}; batch.idx_Bl has its blocks") from None
    return None if np.array_equal(places, np.arange(len(places))) else torch.from_numpy(places).to(device)
