"""Looking at the samples of one source shard: what they hold, and what would become of them."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field

from pipeline.config import SourceConfig
from pipeline.errors import BadSample, SourceError, VqtokError
from pipeline.records import SourceShard
from pipeline.source.containers.container import Description
from pipeline.source.images.opening import look_at
from pipeline.source.reading import describe_shard, open_shard
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

CAPTIONS = ("txt", "caption", "text")
_READ = ("cls", "json", *CAPTIONS)
_CAPTION_CHARACTERS = 60
_TEXT_BYTES = 1 << 20


@dataclass
class Tally:
    """What has been seen."""

    samples: int = 0
    rows: int = 0
    members: Counter[str] = field(default_factory=Counter)
    """Samples that have a member of this extension."""
    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(height, width) of images."""
    rejects: Counter[str] = field(default_factory=Counter)
    """By reason."""
    classes: Counter[int] = field(default_factory=Counter)
    """Values of members that hold an integer, or of the column with labels."""
    folders: set[str] = field(default_factory=set)
    """First folders of keys."""
    json_integers: Counter[str] = field(default_factory=Counter)
    """Keys of `.json` members whose values are integers."""
    caption: str = ""
    """The first one."""


@dataclass
class Look:
    """What came of looking into a source shard."""

    shard: SourceShard
    description: Description | None = None
    samples: int = 0
    """Looked at."""
    bytes: int = 0
    """Read for that."""
    ended: bool = False
    """Whether all of it was looked at."""
    problem: str = ""
    """Why it cannot be read, or read further."""


def look_into(
    shard: SourceShard, source: SourceConfig, tally: Tally, max_samples: int, max_pixels: int, deadline: float
) -> Look:
    """Add up to `max_samples` samples to `tally`, but none after `deadline`, a time of `time.monotonic`."""
    look = Look(shard)
    try:
        look.description = describe_shard(shard, source.model_copy(update={"label": "cls"}))
        _read(look, _wanting(source, look.description), tally, max_samples, max_pixels, deadline)
    except SourceError as error:
        look.problem = str(error)
    return look


def _wanting(source: SourceConfig, description: Description) -> SourceConfig:
    """The section that reads what tells about labels and captions, too."""
    if not description.columns:
        return source.model_copy(update={"label": None, "keep": _READ})
    captions = [name for name in CAPTIONS if name in description.columns and name != description.image]
    return source.model_copy(update={"label": "cls", "keep": tuple(captions)})


def _read(look: Look, source: SourceConfig, tally: Tally, max_samples: int, max_pixels: int, deadline: float) -> None:
    reader = open_shard(look.shard, source, digests=False)
    selection = Selection(source.model_copy(update={"label": None}))
    samples = iter(reader)
    while look.samples < max_samples and (time.monotonic() < deadline or not tally.samples):
        sample = next(samples, None)
        if sample is None:
            look.ended = True
            break
        look.samples += 1
        look.bytes = reader.bytes
        _count(sample, selection, tally, max_pixels)
    if hasattr(samples, "close"):
        samples.close()  # what is read ahead in threads is not wanted


def _count(sample: Sample, selection: Selection, tally: Tally, max_pixels: int) -> None:
    tally.samples += 1
    tally.members.update(list(sample.members))
    folder, slash, _ = sample.key.removeprefix("./").partition("/")
    tally.folders.add(folder if slash else "")
    _note_texts(sample, tally)
    try:
        seen = look_at(selection.image(sample), max_pixels)
    except BadSample as error:
        tally.rejects[str(error)] += 1
        return
    except (VqtokError, MemoryError) as error:
        tally.rejects[f"not here: {error}"] += 1
        return
    tally.rows += 1
    tally.formats[seen.format] += 1
    tally.sizes[seen.height, seen.width] += 1


def _note_texts(sample: Sample, tally: Tally) -> None:
    label = sample.members.get("cls")
    if label is not None and (number := _integer(label)) is not None:
        tally.classes[number] += 1
    tally.json_integers.update(_integers_of(sample.members.get("json") or b""))
    caption = next((data for name in CAPTIONS if (data := sample.members.get(name))), None)
    if caption and not tally.caption:
        tally.caption = " ".join(caption[: 8 * _CAPTION_CHARACTERS].decode("utf-8", "replace").split())
        tally.caption = tally.caption[:_CAPTION_CHARACTERS]


def _integer(data: bytes) -> int | None:
    try:
        return int(data[:40].decode("ascii"))
    except ValueError:
        return None


def _integers_of(data: bytes) -> list[str]:
    """Keys of a JSON object whose values are integers."""
    if len(data) > _TEXT_BYTES:
        return []
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return [key for key, value in tree.items() if type(value) is int] if isinstance(tree, dict) else []
