"""Look at some samples of some source shards, and say what a collection holds."""

import math
import time
from dataclasses import dataclass
from functools import cached_property

from tqdm import tqdm

from pipeline.config import ImageConfig, SourceConfig
from pipeline.jobs.inspecting.finding import find_collection
from pipeline.jobs.inspecting.looking import Look, Tally, look_into
from pipeline.jobs.plan import spread
from pipeline.records import JSON, SourceShard
from pipeline.redaction import redacted_place
from pipeline.storage import Storage

SHARDS, SAMPLES, SECONDS = 8, 500, 20.0
_SPLITS = frozenset("train training val valid validation dev eval test testing holdout".split())
_APART = "source.regroup=true"


@dataclass(frozen=True)
class Inspection:
    """What a collection holds, as far as it was looked at."""

    name: str
    source: SourceConfig
    """What reads it."""
    shards: list[SourceShard]
    looks: list[Look]
    tally: Tally
    remarks: list[str]
    """On what lies beside them, and is not looked at."""

    @property
    def kind(self) -> str:
        """The containers in words."""
        kinds = dict.fromkeys(look.description.kind for look in self.looks if look.description)
        return " and ".join(kinds) or "nothing that can be read"

    @property
    def bytes(self) -> int:
        """Of all source shards, as far as it is known."""
        return sum(shard.bytes or 0 for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether all samples were looked at."""
        return len(self.looks) == len(self.shards) and all(look.ended for look in self.looks)

    @cached_property
    def samples(self) -> int | None:
        """All of them, counted or estimated; None where nothing tells."""
        known = [(look, _samples_of(look)) for look in self.looks]
        counted = [(look.shard.bytes or 0, found) for look, found in known if found is not None]
        if not counted:
            return None
        rest = len(self.shards) - len(counted)
        size, found = sum(pair[0] for pair in counted), sum(pair[1] for pair in counted)
        if not rest:
            return round(found)
        if size and all(shard.bytes for shard in self.shards):
            return round(found * self.bytes / size)
        return round(found * len(self.shards) / len(counted))

    @property
    def is_counted(self) -> bool:
        """Whether `samples` is exact."""
        return len(self.looks) == len(self.shards) and all(
            look.ended or (look.description is not None and look.description.samples is not None) for look in self.looks
        )

    @property
    def rows(self) -> int | None:
        """Samples that would become rows, estimated unless all were looked at."""
        if self.samples is None or not self.tally.samples:
            return None
        return round(self.samples * self.tally.rows / self.tally.samples)

    @property
    def problems(self) -> list[str]:
        """Why source shards cannot be read."""
        return [look.problem for look in self.looks if look.problem]

    def columns(self) -> dict[str, str]:
        """Names and types of the columns, where there are any."""
        return next((look.description.columns for look in self.looks if look.description), {})

    def label_column(self) -> str | None:
        """The column with labels, where there is one."""
        return next((look.description.label for look in self.looks if look.description), None)

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the labels, where the files tell them."""
        return next((look.description.classes for look in self.looks if look.description), None)

    def folders(self) -> list[str]:
        """First folders of the keys, where each key has one: classes, by ImageFolder's rule."""
        found = self.tally.folders | {
            name.partition("/")[0] for shard in self.shards if shard.listing is not None for name in shard.listing.files
        }
        return [] if "" in found else sorted(found)

    def are_splits(self) -> bool:
        """Whether the first folders divide a collection into training and test, each with the classes in it."""
        return bool(self.folders()) and all(name.lower() in _SPLITS for name in self.folders())

    def short_sides(self) -> list[int]:
        """The shorter side of each image that was looked at, sorted."""
        return sorted(min(size) for size, count in self.tally.sizes.items() for _ in range(count))

    def histogram(self) -> list[tuple[str, int]]:
        """Images by their shorter side, in powers of two."""
        found: dict[int, int] = {}
        for side in self.short_sides():
            low = 1 << int(math.log2(side)) if side else 0
            found[low] = found.get(low, 0) + 1
        return [(f"{low}-{2 * low - 1}" if low > 1 else str(low), count) for low, count in sorted(found.items())]

    def to_json(self) -> JSON:
        """For programs."""
        tally = self.tally
        return {
            "source": redacted_place(self.name),
            "container": self.kind,
            "settings": {
                "shards": [redacted_place(pattern) for pattern in self.source.shards],
                "nested": self.source.nested,
                "regroup": self.source.regroup,
            },
            "source_shards": len(self.shards),
            "bytes": self.bytes,
            "samples": self.samples,
            "samples_counted": self.is_counted,
            "rows": self.rows,
            "looked_at": {"source_shards": len(self.looks), "samples": tally.samples, "rows": tally.rows},
            "members": dict(tally.members.most_common()),
            "columns": self.columns(),
            "formats": dict(tally.formats.most_common()),
            "short_sides": dict(self.histogram()),
            "sizes": [[*size, count] for size, count in tally.sizes.most_common(10)],
            "labels": {str(value): count for value, count in sorted(tally.classes.items())},
            "label_column": self.label_column(),
            "classes": self.class_names(),
            "folders": self.folders(),
            "json_integers": dict(tally.json_integers.most_common()),
            "caption": tally.caption,
            "rejects": dict(tally.rejects.most_common()),
            "problems": self.problems,
            "remarks": self.remarks,
        }


def run(name: str, show_progress: bool = False, seconds: float = SECONDS, storage: Storage | None = None) -> Inspection:
    """Look at up to 8 source shards from all over the collection, and up to 500 samples of each, for some `seconds`.

    Raises ConfigError where there is no source shard.
    """
    found = find_collection(name, storage or Storage())
    chosen = spread(found.shards, SHARDS)
    tally, looks = Tally(), list[Look]()
    source, deadline = found.source, time.monotonic() + seconds
    for number, shard in enumerate(tqdm(chosen, "look", leave=False, unit=" source shards", disable=not show_progress)):
        now = time.monotonic()
        if looks and now > deadline:
            break
        until = now + (deadline - now) / (len(chosen) - number)
        before = _copy(tally)
        look = look_into(shard, source, tally, SAMPLES, ImageConfig(size=256).max_pixels, until)
        if _APART in look.problem and not source.regroup:
            source, tally = source.model_copy(update={"regroup": True}), before
            look = look_into(shard, source, tally, SAMPLES, ImageConfig(size=256).max_pixels, until)
        elif look.problem and shard.listing is not None:  # of one file, which hides all behind it
            tally, problem = before, look.problem
            all_excluded = source.model_copy(update={"exclude": ("*",)})
            look = look_into(shard, all_excluded, tally, SAMPLES, ImageConfig(size=256).max_pixels, until)
            look.problem = look.problem or problem
        looks.append(look)
    return Inspection(name, source, found.shards, looks, tally, found.remarks)


def _samples_of(look: Look) -> float | None:
    """How many samples a source shard has, exactly or by its bytes."""
    if look.ended:
        return look.samples
    if look.description is not None and look.description.samples is not None:
        return look.description.samples
    if look.samples and look.bytes and look.shard.bytes:
        return look.samples * look.shard.bytes / look.bytes
    return None


def _copy(tally: Tally) -> Tally:
    return Tally(**{name: value.copy() if hasattr(value, "copy") else value for name, value in vars(tally).items()})
