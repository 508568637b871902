"""A line of the result, and what a check is given."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu.collection import Collection

_LEAST_SECONDS = 120.0


@dataclass(frozen=True)
class Line:
    """What came of one question."""

    what: str
    ok: bool | None
    """None where it could not be asked here."""
    figures: str = ""

    def __str__(self) -> str:
        state = {True: "ok", False: "**NOT OK**", None: "skipped"}[self.ok]
        return f"| {state} | {self.what} | {' '.join(self.figures.split()).replace('|', '/')} |"


def skipped(what: str, reason: str) -> Line:
    """A line of a question that cannot be asked here."""
    return Line(what, None, reason)


@dataclass(frozen=True)
class Bench:
    """Where and with what the checks work."""

    device: torch.device
    folder: Path
    """For whatever they write; deleted in the end."""
    collection: Collection
    quick: bool
    """Whether this is a trial on the CPU, whose figures mean nothing."""
    ends: float
    """When it has taken long enough, by the monotonic clock."""

    @property
    def gpus(self) -> int:
        """How many GPUs this machine has."""
        return torch.cuda.device_count() if self.on_gpu else 0

    @property
    def on_gpu(self) -> bool:
        """Whether this is no trial."""
        return self.device.type == "cuda"

    @property
    def seconds_left(self) -> float:
        """What a process may take: what is left, and not so little that a check which has begun fails for that."""
        return max(_LEAST_SECONDS, self.ends - time.monotonic())


Check = Callable[[Bench], Iterator[Line]]


def answers(check: Check, bench: Bench) -> Iterator[Line]:
    """The lines of a check; one more where it fails to come to its end."""
    name = check.__name__.replace("_", " ")
    if time.monotonic() > bench.ends:
        yield skipped(name, "no time left: --limit")
        return
    try:
        yield from check(bench)
    except Exception as error:  # whatever it is, the next check is to be asked too
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f" ({Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno})" if where else ""
        yield Line(name, False, f"{type(error).__name__}{place}: {str(error)[:400]}")
