"""What a part of a store knows of a key: the rows that have it, and the rejects."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from pipeline.files import Files
from pipeline.jobs.rejects import read_rejects
from pipeline.records import JSON, NO_LABEL, Geometry, Reject
from pipeline.store.arrays.parts import Part
from pipeline.store.keys import encoded, rows_with
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.manifest import PartRecord


@dataclass(frozen=True)
class FoundView:
    """One of several views of a sample's image."""

    box: list[int]
    """Top, left, height and width in pixels of the resized image."""
    flip: bool
    """Whether it is mirrored left to right."""
    blocks: list[list[int]]
    """Tokens of each block."""


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
    """Tokens of each block, of the first view where there are several."""
    views: list[FoundView] = field(default_factory=list)
    """All of them, in a store with views."""

    def to_json(self) -> JSON:
        tree = {**asdict(self), "fields": {name: _field_json(data) for name, data in self.fields.items()}}
        return tree if self.views else {name: value for name, value in tree.items() if name != "views"}


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
    damaged: list[str] = field(default_factory=list)
    """What could not be read, a message for each: the key may stand there, too."""

    def to_json(self) -> JSON:
        return {
            "store": self.store,
            "key": self.key,
            "rows": [row.to_json() for row in self.rows],
            "rejects": [reject.to_json() for reject in self.rejects],
            "damaged": self.damaged,
        }


def find_in_part(
    files: Files, birth: Birth, record: PartRecord, key: str, start: int | None
) -> list[FoundRow | FoundReject]:
    """The rows and the rejects of a part that have the key.

    Reads the keys of all rows, and of rows that have the key nothing but these rows.

    Args:
        start: the number in the store of the part's first row; None while the manifest does not have the part.

    Raises CorruptStore for a damaged part.
    """
    part = Part(files, birth, record)
    wanted = encoded(key)
    rows = [] if wanted is None else rows_with(part, wanted).tolist()
    rejects = read_rejects(files, record)
    return [*_rows_of(part, rows, birth, record, rejects, start), *_rejects_of(key, record, rejects)]


def _rows_of(
    part: Part, rows: list[int], birth: Birth, record: PartRecord, rejects: list[Reject], start: int | None
) -> Iterator[FoundRow]:
    """These rows of a part whose first row is row `start` of the store."""
    for row in rows:
        label = int(part.read("label", slice(row, row + 1))[0])
        blocks = _blocks(part, row, birth.geometry)
        yield FoundRow(
            store_row=None if start is None else start + row,
            part=record.part,
            part_row=row,
            source=record.sources[0].path,
            source_index=_source_index(row, [reject.index for reject in rejects]),
            label=None if label == NO_LABEL else label,
            fields={name: _field(part, name, row) for name in birth.fields},
            blocks=blocks[0],
            views=[] if birth.views is None else list(_views(part, row, blocks)),
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


def _blocks(part: Part, row: int, geometry: Geometry) -> list[list[list[int]]]:
    """Of each view, the tokens of each block."""
    tokens_VL = part.tokens(slice(row, row + 1)).reshape(-1, geometry.num_tokens)
    cuts = np.cumsum(geometry.block_lengths)[:-1]
    return [[block.tolist() for block in np.split(tokens, cuts)] for tokens in tokens_VL]


def _views(part: Part, row: int, blocks: list[list[list[int]]]) -> Iterator[FoundView]:
    (boxes,), (flips,) = (part.read(path, slice(row, row + 1)) for path in ("view/box", "view/flip"))
    for box, flip, own in zip(boxes.tolist(), flips.tolist(), blocks, strict=True):
        yield FoundView(box, bool(flip), own)


def _source_index(row: int, rejected: Sequence[int]) -> int:
    """The position among all samples of what is row `row` of those that were not rejected."""
    index = row
    for reject in sorted(rejected):
        index += reject <= index
    return index


def _field_json(data: bytes | None) -> JSON | None:
    """`text` where it is UTF-8, else `base64`."""
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
