"""What `vqtok show` prints for people."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.jobs.showing.finding import Found, FoundReject, FoundRow, FoundView
from pipeline.jobs.terminal import printable
from pipeline.models.layouts.cuts import CUTS
from pipeline.records import Geometry

# Tokens on a line where a block is no rectangle.
_TOKENS_PER_LINE = 16
# Bytes shown of a kept member that is not text.
_BYTES_SHOWN = 32


def as_text(found: Found) -> str:
    """A paragraph for each place where the key stands, rows before rejects, with an empty line between two."""
    rows = [_describe_row(row, found.geometry) for row in found.rows]
    rejects = [_describe_reject(reject) for reject in found.rejects]
    return "\n\n".join("\n".join([printable(found.key), *lines]) for lines in (*rows, *rejects))


def _describe_row(row: FoundRow, geometry: Geometry) -> list[str]:
    number = "not in the manifest yet" if row.store_row is None else f"row {row.store_row} of the store"
    h, w = geometry.grid
    return [
        f"  {number}, row {row.part_row} of {row.part}",
        f"  from {printable(row.source)}, sample {row.source_index}",
        f"  label {'(none)' if row.label is None else row.label}",
        *(f"  {printable(name)} {_field_text(data)}" for name, data in row.fields.items()),
        f"  {geometry.num_tokens} tokens{' a view' * bool(row.views)}, layout {geometry.layout} of a grid of {h} x {w}",
        *(_describe_views(row.views, geometry) if row.views else _describe_blocks(row.blocks, geometry)),
    ]


def _describe_views(views: Sequence[FoundView], geometry: Geometry) -> Iterator[str]:
    """For each view what part of the image it is, then its blocks."""
    for number, view in enumerate(views):
        top, left, height, width = view.box
        mirrored = ", mirrored" if view.flip else ""
        yield f"  view {number}, {height} x {width} pixels from row {top}, column {left} of the resized image{mirrored}"
        yield from _describe_blocks(view.blocks, geometry)


def _describe_blocks(blocks: Sequence[Sequence[int]], geometry: Geometry) -> Iterator[str]:
    for number in range(len(blocks)):
        yield from _describe_block(number, blocks, geometry)


def _describe_reject(reject: FoundReject) -> list[str]:
    return [
        f"  rejected at stage {reject.stage}: {printable(reject.reason)}",
        f"  from {printable(reject.source)}, sample {reject.source_index}; part {reject.part}",
    ]


def _describe_block(number: int, blocks: Sequence[Sequence[int]], geometry: Geometry) -> list[str]:
    """A heading, and the tokens: as rows of the grid where the block is a rectangle of it."""
    tokens = blocks[number]
    area = rectangle(number, geometry)
    if area is None:
        where, per_line = f"{len(tokens)} tokens", _TOKENS_PER_LINE
    else:
        rows, columns = area
        where = f"grid rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1}"
        per_line = len(columns)
    width = max(len(str(token)) for block in blocks for token in block)
    lines = [tokens[start : start + per_line] for start in range(0, len(tokens), per_line)]
    return [f"  block {number}, {where}", *("    " + " ".join(f"{token:{width}}" for token in line) for line in lines)]


def rectangle(block: int, geometry: Geometry) -> tuple[range, range] | None:
    """Grid rows and columns of a block that is a rectangle in row-major order; None for any other block."""
    layout = CUTS.get(geometry.layout)
    if layout is None or layout.block_lengths(geometry.grid) != geometry.block_lengths:
        return None
    h, w = geometry.grid
    cells = layout.cells(h, w)[block]
    if not cells.size:
        return None
    rows, columns = (range(int(axis.min()), int(axis.max()) + 1) for axis in np.divmod(cells, w))
    whole = np.add.outer(np.array(rows) * w, np.array(columns)).reshape(-1)
    return (rows, columns) if np.array_equal(cells, whole) else None


def _field_text(data: bytes | None) -> str:
    if data is None:
        return "(none)"
    try:
        return printable(data.decode()) if data else "(empty)"
    except UnicodeDecodeError:
        more = "…" if len(data) > _BYTES_SHOWN else ""
        return f"({len(data):,} bytes, not text) {data[:_BYTES_SHOWN].hex(' ')}{more}"
