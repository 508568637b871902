"""What some measured images say of a whole collection. Pure: no files, no clock."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from pipeline.jobs.bounds import Bounds
from pipeline.records import JSON


@dataclass(frozen=True)
class Look:
    """What was measured at one source shard."""

    samples: int
    """Read of it."""
    source_bytes: int
    """Read for that."""
    all_samples: int | None
    """How many it holds, where that is known."""
    rows: int
    rejected: int
    row_bytes: int
    """Of the arrays: what grows with the rows."""
    part_bytes: int
    """Of metadata and commit record: what each part has."""
    reject_bytes: int


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    looks: tuple[Look, ...]
    images: int
    """Samples in `seconds`."""
    seconds: float
    stages: dict[str, float]
    """Samples a second of each stage, if the others did not hold it up."""
    bounds: Bounds | None
    store_bytes: int
    """What a store has once: its birth, codebook and rule."""
    manifest_bytes: int
    """What each part adds to the manifest."""
    device: str
    cores: int
    on_gpu: bool


@dataclass(frozen=True)
class Estimate:
    """What a job will take, in processes like the one that measured."""

    source_shards: int
    source_bytes: int
    """Of all source shards, as far as it is known."""
    measured: Measured
    processes: int
    price: float | None
    """Of an hour of one process."""

    @cached_property
    def samples(self) -> float:
        """All of them: counted, where every source shard says how many it has, else by bytes."""
        looks = self.measured.looks
        whole = [look.all_samples for look in looks if look.all_samples is not None]
        if len(whole) == len(looks) == self.source_shards:
            return float(sum(whole))
        read, size = sum(look.samples for look in looks), sum(look.source_bytes for look in looks)
        if size and self.source_bytes:
            return read * self.source_bytes / size
        return sum(whole) * self.source_shards / max(len(whole), 1) if whole else math.nan

    @property
    def is_counted(self) -> bool:
        """Whether `samples` is exact."""
        return len(self.measured.looks) == self.source_shards and all(
            look.all_samples is not None for look in self.measured.looks
        )

    @property
    def rows(self) -> float:
        """Samples that will be rows."""
        return self.samples * _ratio(self._sum("rows"), self._sum("samples"))

    @property
    def images_per_second(self) -> float:
        """Of one process."""
        return _ratio(self.measured.images, self.measured.seconds)

    @property
    def shards_of_one(self) -> int:
        """Source shards that a process does, one after the other, where none does fewer than it can."""
        return max(math.ceil(self.source_shards / self.processes), 1)

    @property
    def at_work(self) -> float:
        """Processes that are at work, on average: a source shard is the work of one, so that some find none in the end,
        or from the beginning."""
        return self.source_shards / self.shards_of_one

    @property
    def hours(self) -> float:
        return self.samples / (self.images_per_second * self.at_work) / 3600 if self.images_per_second else math.nan

    @property
    def process_hours(self) -> float:
        """Hours of all processes; GPU-hours where each has a GPU."""
        return self.hours * self.processes

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.process_hours * self.price

    @property
    def bytes_per_row(self) -> float:
        """Of the arrays."""
        return _ratio(self._sum("row_bytes"), self._sum("rows"))

    @property
    def bytes_per_part(self) -> float:
        """Metadata, commit record, and the line in the manifest."""
        return _ratio(self._sum("part_bytes"), len(self.measured.looks)) + self.measured.manifest_bytes

    @property
    def reject_bytes(self) -> float:
        """Of the lists of rejects."""
        return self.samples * _ratio(self._sum("reject_bytes"), self._sum("samples"))

    @property
    def store_bytes(self) -> float:
        """Of the whole store."""
        parts = self.source_shards * self.bytes_per_part
        return self.measured.store_bytes + parts + self.rows * self.bytes_per_row + self.reject_bytes

    @property
    def spread(self) -> float | None:
        """Two standard errors of what the store has for each byte of the source, as a share of it; None where fewer
        than three source shards were looked at."""
        shares = [
            (look.row_bytes + look.part_bytes * look.samples / look.all_samples) / look.source_bytes
            if look.all_samples
            else look.row_bytes / look.source_bytes
            for look in self.measured.looks
            if look.source_bytes
        ]
        if len(shares) < 3:
            return None
        mean = sum(shares) / len(shares)
        deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / (len(shares) - 1))
        left = 1 - len(shares) / self.source_shards if self.is_counted else 1.0
        return _ratio(2 * deviation * math.sqrt(max(left, 0)), mean * math.sqrt(len(shares)))

    def to_json(self) -> JSON:
        """For programs."""
        measured = asdict(self.measured)
        return {
            "source": {"source_shards": self.source_shards, "bytes": self.source_bytes},
            "samples": _whole(self.samples),
            "samples_counted": self.is_counted,
            "rows": _whole(self.rows),
            "images_per_second": self.images_per_second,
            "stages_images_per_second": measured["stages"],
            "bounds": measured["bounds"],
            "device": self.measured.device,
            "cores": self.measured.cores,
            "processes": self.processes,
            "processes_at_work": self.at_work,
            "hours": None if math.isnan(self.hours) else self.hours,
            "process_hours": None if math.isnan(self.hours) else self.process_hours,
            "gpu_hours": self.process_hours if self.measured.on_gpu and not math.isnan(self.hours) else None,
            "price": self.price,
            "cost": None if self.cost is None or math.isnan(self.cost) else self.cost,
            "store_bytes": _whole(self.store_bytes),
            "store_bytes_spread": self.spread,
            "store_bytes_of": {
                "once": self.measured.store_bytes,
                "each_part": self.bytes_per_part,
                "each_row": self.bytes_per_row,
                "rejects": _whole(self.reject_bytes),
            },
            "measured": {"images": self.measured.images, "seconds": self.measured.seconds, "looks": measured["looks"]},
        }

    def _sum(self, name: str) -> int:
        looks: Sequence[Look] = self.measured.looks
        return sum(int(getattr(look, name)) for look in looks)


def _ratio(of: float, to: float) -> float:
    return of / to if to else 0.0


def _whole(number: float) -> int | None:
    return None if math.isnan(number) else round(number)
