"""The samples of a store that have a key: their tokens and where they came from, or why they were rejected.

Without torch.
"""

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from tqdm import tqdm

from pipeline.errors import StoreError
from pipeline.files import Files, files_at
from pipeline.files.each import read_each
from pipeline.jobs.rejects import read_rejects
from pipeline.jobs.terminal import printable
from pipeline.models.layouts.cuts import CUTS
from pipeline.overlap import ordered_map
from pipeline.records import JSON, NO_LABEL, Geometry, Reject
from pipeline.store.arrays.parts import Part
from pipeline.store.keys import SEARCH_THREADS, encoded, rows_with
from pipeline.store.schema.birth import Birth, read_birth
from pipeline.store.schema.commits import committed_parts, read_commit
from pipeline.store.schema.manifest import PartRecord, read_manifest

# Tokens on a line where a block is no rectangle.
_TOKENS_PER_LINE = 16
# Bytes shown of a kept member that is not text.
_BYTES_SHOWN = 32


@dataclass(frozen=True)
class FoundRow:
    """A sample that was tokenized."""

    store_row: int | None
    """Its number in `TokenStore`; None while the manifest does not have its part."""
    part: str
    part_row: int
    source: str
    source_index: int
    """Its position among all samples of the source shard."""
    label: int | None
    fields: dict[str, bytes | None]
    """Kept members; None for one that the sample did not have."""
    blocks: list[list[int]]
    """Tokens of each block."""

    def to_json(self) -> JSON:
        return {**asdict(self), "fields": {name: _field_json(data) for name, data in self.fields.items()}}


@dataclass(frozen=True)
class FoundReject:
    """A sample that was not."""

    part: str
    source: str
    source_index: int
    stage: str
    reason: str

    def to_json(self) -> JSON:
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """Every place where a key stands: keys may repeat across source shards."""

    store: str
    key: str
    geometry: Geometry = field(repr=False)
    rows: list[FoundRow]
    rejects: list[FoundReject]

    def to_json(self) -> JSON:
        return {
            "store": self.store,
            "key": self.key,
            "rows": [row.to_json() for row in self.rows],
            "rejects": [reject.to_json() for reject in self.rejects],
        }

    def __str__(self) -> str:
        return "\n\n".join(
            [
                *("\n".join([printable(self.key), *_describe_row(row, self.geometry)]) for row in self.rows),
                *("\n".join([printable(self.key), *_describe_reject(reject)]) for reject in self.rejects),
            ]
        )


def run(store: str, key: str, show_progress: bool = False) -> Found:
    """Look for every occurrence of `key` in all committed parts, rows as well as rejects.

    Reads the keys of every part, and of rows that have the key nothing but these rows.

    Raises StoreError where neither a row nor a reject has the key, CorruptStore for a damaged part.
    """
    files = files_at(store)
    birth = read_birth(files)
    parts, starts = _parts(files)
    wanted = encoded(key)

    def look_into(record: PartRecord) -> list[FoundRow | FoundReject]:
        part = Part(files, birth, record.part, record.attempt, record.written)
        rejects = read_rejects(files, record.part, record.attempt) if record.rejected else []
        numbers = [] if wanted is None else rows_with(part, wanted).tolist()
        return [
            *_rows_of(part, numbers, birth, record, rejects, starts.get(record.part)),
            *_rejects_of(key, record, rejects),
        ]

    with ThreadPoolExecutor(SEARCH_THREADS, "look") as threads:
        looks = ordered_map(look_into, parts, threads, ahead=2 * SEARCH_THREADS)
        bar = tqdm(looks, "look", len(parts), leave=False, unit=" parts", disable=not show_progress)
        places = [place for look in bar for place in look]
    if not places:
        looked = sum(record.written + record.rejected for record in parts)
        raise StoreError(
            f"{files.root}: no sample has the key {key!r}, of {looked:,} in {len(parts):,} committed parts"
            f"{_hint(key)}; a source shard that is still pending may hold it (vqtok status)"
        )
    return Found(
        files.root,
        key,
        birth.geometry,
        rows=[place for place in places if isinstance(place, FoundRow)],
        rejects=[place for place in places if isinstance(place, FoundReject)],
    )


def _parts(files: Files) -> tuple[list[PartRecord], dict[str, int]]:
    """All committed parts, sorted, and the numbers of their first rows, as far as the manifest has them."""
    manifest = read_manifest(files)
    known = {record.part: record for record in manifest.parts} if manifest else {}
    starts, start = {}, 0
    for record in known.values():
        starts[record.part] = start
        start += record.written
    names = sorted(committed_parts(files))
    # One manifest is read much faster than all the commits.
    return read_each(lambda name: known.get(name) or PartRecord.of(read_commit(files, name), since=0), names), starts


def _rows_of(
    part: Part, rows: list[int], birth: Birth, record: PartRecord, rejects: list[Reject], start: int | None
) -> Iterator[FoundRow]:
    """These rows of a part whose first row is row `start` of the store."""
    for row in rows:
        label = int(part.read("label", slice(row, row + 1))[0])
        yield FoundRow(
            store_row=None if start is None else start + row,
            part=record.part,
            part_row=row,
            source=record.sources[0].path,
            source_index=_source_index(row, [reject.index for reject in rejects]),
            label=None if label == NO_LABEL else label,
            fields={name: _field(part, name, row) for name in birth.fields},
            blocks=_blocks(part, row, birth.geometry),
        )


def _rejects_of(key: str, record: PartRecord, rejects: list[Reject]) -> Iterator[FoundReject]:
    for reject in rejects:
        if reject.key == key:
            yield FoundReject(record.part, record.sources[0].path, reject.index, reject.stage, reject.reason)


def _field(part: Part, name: str, row: int) -> bytes | None:
    if not part.read(f"fields/{name}/present", slice(row, row + 1))[0]:
        return None
    first, last = part.read(f"fields/{name}/offsets", slice(row, row + 2))
    return part.read(f"fields/{name}/data", slice(int(first), int(last))).tobytes()


def _blocks(part: Part, row: int, geometry: Geometry) -> list[list[int]]:
    tokens = part.tokens(slice(row, row + 1)).reshape(-1, geometry.num_tokens)[0]  # of the first view
    return [block.tolist() for block in np.split(tokens, np.cumsum(geometry.block_lengths)[:-1])]


def _source_index(row: int, rejected: Sequence[int]) -> int:
    """The position among all samples of what is row `row` of those that were not rejected."""
    index = row
    for reject in sorted(rejected):
        index += reject <= index
    return index


def _hint(key: str) -> str:
    """For those who give the name of a file."""
    folder, slash, name = key.rpartition("/")
    stem, dot, _ = name.partition(".")
    return (
        f"; a key ends before the first dot of the file's name: try {folder + slash + stem!r}" if stem and dot else ""
    )


def _field_json(data: bytes | None) -> JSON | None:
    """`text` where it is UTF-8, else `base64`."""
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _describe_row(row: FoundRow, geometry: Geometry) -> list[str]:
    number = "not in the manifest yet" if row.store_row is None else f"row {row.store_row} of the store"
    h, w = geometry.grid
    return [
        f"  {number}, row {row.part_row} of {row.part}",
        f"  from {printable(row.source)}, sample {row.source_index}",
        f"  label {'(none)' if row.label is None else row.label}",
        *(f"  {printable(name)} {_field_text(data)}" for name, data in row.fields.items()),
        f"  {geometry.num_tokens} tokens, layout {geometry.layout} of a grid of {h} x {w}",
        *(line for number in range(len(row.blocks)) for line in _describe_block(number, row.blocks, geometry)),
    ]


def _describe_reject(reject: FoundReject) -> list[str]:
    return [
        f"  rejected at stage {reject.stage}: {printable(reject.reason)}",
        f"  from {printable(reject.source)}, sample {reject.source_index}; part {reject.part}",
    ]


def _describe_block(number: int, blocks: Sequence[Sequence[int]], geometry: Geometry) -> list[str]:
    """A heading, and the tokens: as rows of the grid where the block is a rectangle of it."""
    tokens = blocks[number]
    rectangle = _rectangle(number, geometry)
    if rectangle is None:
        where, per_line = f"{len(tokens)} tokens", _TOKENS_PER_LINE
    else:
        rows, columns = rectangle
        where = f"grid rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1}"
        per_line = len(columns)
    width = max(len(str(token)) for block in blocks for token in block)
    lines = [tokens[start : start + per_line] for start in range(0, len(tokens), per_line)]
    return [f"  block {number}, {where}", *("    " + " ".join(f"{token:{width}}" for token in line) for line in lines)]


def _rectangle(block: int, geometry: Geometry) -> tuple[range, range] | None:
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
