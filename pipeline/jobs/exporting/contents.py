"""What an export holds, whatever its format.

Shape letters: n examples, V views, L tokens of a view.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.exporting.request import Request
from pipeline.models.layouts.raster import raster_places
from pipeline.records import NO_LABEL, Geometry
from pipeline.store.reader import TokenStore
from pipeline.store.types import Array

_LABELS_AT_ONCE = 1 << 20

ViewsIn = Literal["all", "rows"] | None
"""Where a format has views: in the example, or as examples one behind the other; None for one that has no place."""


@dataclass(frozen=True)
class Contents:
    """The examples of an export: rows of the store, or single views of rows."""

    rows: int
    """Of the store."""
    geometry: Geometry
    vocab_size: int
    dtype: str
    """Of the tokens in the store."""
    order: Literal["raster", "blocks"]
    cells: Array | None
    """int64 [L], where in a row of the store each token stands; None where they stay as they are."""
    view: int | Literal["all", "rows"]
    """Which view of each row, 0 where there is only one."""
    num_views: int
    """V of the store."""
    fields: tuple[str, ...]
    classes: tuple[str, ...] | None
    labels: tuple[int, int]
    """The smallest and the largest label, -1 for none."""

    @property
    def per_row(self) -> int:
        """Examples that a row of the store becomes."""
        return self.num_views if self.view == "rows" else 1

    @property
    def count(self) -> int:
        """n, all examples."""
        return self.rows * self.per_row

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tokens of an example, [L], or [V, L] with all views."""
        length = self.geometry.num_tokens
        return (self.num_views, length) if self.view == "all" else (length,)

    @property
    def bytes(self) -> int:
        """Of the tokens of an example, in the store's dtype."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def grid(self) -> tuple[int, int] | None:
        """(h, w) where the tokens of an image stand row by row, None in block order."""
        return self.geometry.grid if self.order == "raster" else None


def contents_of(store: TokenStore, request: Request, views_in: ViewsIn) -> Contents:
    """What an export of a store will hold.

    Args:
        views_in: where the format has views.

    Raises ConfigError for an order or a view that the store or the format does not have.
    """
    order, cells = _order(store.geometry, request)
    return Contents(
        rows=len(store),
        geometry=store.geometry,
        vocab_size=store.vocab_size,
        dtype=str(store.read(slice(0, 0)).stored.numpy().dtype),
        order=order,
        cells=cells,
        view=_view(store, request, views_in),
        num_views=store.num_views,
        fields=store.fields,
        classes=store.classes,
        labels=_labels(store),
    )


def _labels(store: TokenStore) -> tuple[int, int]:
    least, largest = np.iinfo(np.int64).max, NO_LABEL
    for start in range(0, len(store), _LABELS_AT_ONCE):
        labels = store.labels_of(np.arange(start, min(start + _LABELS_AT_ONCE, len(store))))
        least, largest = min(least, int(labels.min())), max(largest, int(labels.max()))
    return least, largest


def _order(geometry: Geometry, request: Request) -> tuple[Literal["raster", "blocks"], Array | None]:
    """The order of the tokens, and which token comes where in it; None where they are in it already."""
    if request.order == "blocks":
        return "blocks", None
    try:
        places = raster_places(geometry)
    except TokenizerError as error:
        if request.order is None:
            return "blocks", None
        raise ConfigError(
            f"--order raster: {error}; leave it out, and tokens come block by block: {_lengths(geometry)} of each image"
        ) from error
    return "raster", None if np.array_equal(places, np.arange(len(places))) else places


def _lengths(geometry: Geometry) -> str:
    *some, last = map(str, geometry.block_lengths)
    return f"{', '.join(some)} and {last}" if some else last


def _view(store: TokenStore, request: Request, views_in: ViewsIn) -> int | Literal["all", "rows"]:
    if isinstance(request.view, int):
        if not 0 <= request.view < store.num_views:
            some = (
                f"views 0 to {store.num_views - 1}" if store.num_views > 1 else "one view of each image: leave it out"
            )
            raise ConfigError(f"--view {request.view}: {store.root} has {some}")
        return request.view
    if store.num_views == 1:
        return 0
    view = request.view or views_in
    if view is None or (view == "all" and views_in != "all"):
        raise ConfigError(
            f"{store.root}: each row has {store.num_views} views, for which the format {request.format} has no place; "
            "take one of them with --view 0, or each as a row of its own, one behind the other, with --view rows"
        )
    return view
