"""Values that several floors exchange, and how they are written down.

Everything here is plain data: no torch, no Zarr, no I/O.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from pipeline.before import concise
from pipeline.storage import Storage

JSON = dict[str, Any]

Count = Annotated[int, Field(ge=0, lt=1 << 48)]
"""A number of samples or bytes in a record. Sums of those of all parts are exact in int64."""

Seconds = Annotated[float, Field(ge=0, lt=1e12)]
"""A span of time in a record."""

NO_LABEL = -1
"""In place of the class index of a sample that has none."""


class Record(BaseModel):
    """A frozen value with a strict JSON form: unknown fields are an error, not noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def tree(self) -> JSON:
        """The record as it is written down: keys that came later are left out where they say nothing new (`Before`)."""
        return concise(type(self), self.model_dump(mode="json"))

    def to_json(self) -> bytes:
        """The record as indented UTF-8 JSON, the same bytes for equal records."""
        return (json.dumps(self.tree(), indent=1, ensure_ascii=False) + "\n").encode()


class Geometry(Record):
    """How the tokens of one image are laid out."""

    image_size: tuple[int, int]
    """Height and width in pixels."""
    grid: tuple[int, int]
    """Token rows and columns, (h, w)."""
    layout: str
    """Name of the block layout."""
    block_lengths: tuple[int, ...]
    """L_i, the number of tokens in block i."""
    decodable: bool
    """Whether the blocks cover the grid, so that they can be turned back into an image."""

    @property
    def num_tokens(self) -> int:
        """L_total, the tokens of one image."""
        return sum(self.block_lengths)


class Normalization(Record):
    """What a tokenizer expects of its pixels: uint8 is scaled to [0, 1], then (x - mean) / std per channel."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value that a normalised pixel can take."""
        low = min((0 - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        high = max((1 - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        return low, high


class Stretch(Record):
    """Where in a file a source shard lies that is not all of it."""

    file: str
    """POSIX path relative to `source.base`."""
    start: int
    """Byte at which it begins."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder that make a source shard."""

    folder: str
    """POSIX path of the folder, relative to `source.base`."""
    files: Mapping[str, Sequence[str]]
    """Their names, by the folder below that one in which they lie. Those that are not UTF-8 hold surrogates."""
    missing: Sequence[str] = ()
    """Paths, relative to the folder, of those that are no longer there."""
    is_kept: bool = True
    """Whether it is written down, so that it stays as it is."""

    def __hash__(self) -> int:
        return hash((self.folder, len(self.files), *sorted(self.files)[:1]))

    @property
    def digest(self) -> str:
        """Of the names alone, in hex."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


class SourceShard(Record):
    """One tar, or whatever else holds samples: the unit of work."""

    path: str
    """POSIX path relative to `source.base`."""
    base: str
    """The folder or URL that `path` is relative to, or a `pipe:` command. It is never stored: collections move."""
    part: str
    """Name of the part it becomes: sanitised stem and 12 hex digits of the sha256 of `path`."""
    bytes: int | None
    """Size in bytes when the job was planned; None for the output of a command."""
    version: str = ""
    """Another text whenever the file has been written anew: its modification time, or an object's entity tag."""
    inside: Stretch | None = None
    """None for a file of its own."""
    listing: SkipValidation[Listing] | None = None
    """Its files, where it has several."""
    storage: Annotated[SkipValidation[Storage] | None, Field(exclude=True, repr=False)] = None
    """How `base` is reached, where it is a URL."""

    @property
    def file(self) -> str:
        """Path of the file that it is, or lies in, relative to `base`."""
        return self.inside.file if self.inside else self.path

    @property
    def start(self) -> int:
        """Byte of that file at which it begins."""
        return self.inside.start if self.inside else 0


class SourceRecord(Record):
    """A file that a part was made of, as it was then."""

    path: str
    """Relative to `source.base`."""
    bytes: Count
    sha256: str
    version: str = ""
    """Its version (see `SourceShard`), so that a file that is still the same need not be read to say so."""
    head: str = ""
    """sha256 of its first 64 KiB: tells another file of the same size without reading it all."""


class Reject(Record):
    """A sample that could not be tokenized."""

    key: str
    """The WebDataset `__key__`."""
    index: Count
    """Position of the sample within its source shard, counted from 0 over all samples."""
    stage: str
    """Where it failed: `select` (no or several images), `label`, or `decode`."""
    reason: str


def canonical_json(value: Any) -> bytes:
    """`value` as JSON with sorted keys and no spaces, for digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Name every leaf in which two JSON values differ: `image.size: 64 here, 32 there`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted(ours.keys() | theirs.keys())
            for line in differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
        ]
    if ours == theirs:
        return []
    return [f"{path}: {json.dumps(ours)} here, {json.dumps(theirs)} there"]
