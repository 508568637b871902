"""What `vqtok show` prints for people."""

from collections.abc import Iterator, Sequence

from pipeline.jobs.showing.finding import Found, FoundReject, FoundRow, FoundView
from pipeline.models.layouts.known import layout_of
from pipeline.printing import printable
from pipeline.records import Geometry

# Tokens on a line where a block has no rows.
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
    """A heading, and the tokens: in rows where the layout says that the block has some."""
    tokens = blocks[number]
    layout = layout_of(geometry)
    shape = layout.shape(number, geometry.grid) if layout else None
    where, per_line = (shape.title, shape.columns) if shape else (f"{len(tokens)} tokens", _TOKENS_PER_LINE)
    width = max(len(str(token)) for block in blocks for token in block)
    lines = [tokens[start : start + per_line] for start in range(0, len(tokens), per_line)]
    return [f"  block {number}, {where}", *("    " + " ".join(f"{token:{width}}" for token in line) for line in lines)]


def _field_text(data: bytes | None) -> str:
    if data is None:
        return "(none)"
    try:
        return printable(data.decode()) if data else "(empty)"
    except UnicodeDecodeError:
        more = "…" if len(data) > _BYTES_SHOWN else ""
        return f"({len(data):,} bytes, not text) {data[:_BYTES_SHOWN].hex(' ')}{more}"
