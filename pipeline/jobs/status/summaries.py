"""What a glance at a job needs of its commit records, for ten thousand of them in about a second."""

from collections.abc import Iterable
from functools import cache
from socket import gethostname
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pipeline.errors import CorruptStore
from pipeline.files import Files
from pipeline.files.each import read_sound
from pipeline.jobs.bounds import Load
from pipeline.jobs.status.rates import WorkDone
from pipeline.jobs.work.instructions import cpu_has_bf16
from pipeline.records import JSON, Count, Seconds
from pipeline.store.schema.commits import read_commit_as


class _Source(BaseModel):
    path: str
    bytes: Count


class Committed(BaseModel):
    """Some fields of a CommitRecord. The others are skipped unread: checking all takes eight times as long."""

    model_config = ConfigDict(frozen=True)

    part: str
    attempt: str
    sources: Annotated[tuple[_Source, ...], Field(min_length=1)]
    seen: Count
    written: Count
    rejected: Count
    unlabelled: Count = 0
    missing: dict[str, Count] = Field(default={})
    seconds: dict[str, Seconds]
    threads: dict[str, Count] = Field(default={})
    execution: JSON = Field(default={})
    host: str = ""
    finished: AwareDatetime

    @property
    def source(self) -> str:
        """Path of the source shard."""
        return self.sources[0].path

    def work(self) -> WorkDone:
        """When it was made: the time that its process spent on it alone, before the commit."""
        end = self.finished.timestamp()
        wall_s = self.seconds.get("wall", sum(self.seconds.values()))  # before there was `wall`, stages took turns
        return WorkDone(end - wall_s, end, self.seen, self.sources[0].bytes)

    def load(self, gpu_decodes: bool) -> Load:
        """What its stages did in that time.

        Args:
            gpu_decodes: whether its images were decoded by a GPU.
        """
        on_cpu = str(self.execution.get("device", "")).startswith("cpu")
        return Load(self.seconds, self.threads, on_cpu, on_cpu and self._bf16_would_help(), gpu_decodes)

    def _bf16_would_help(self) -> bool:
        """Whether it was encoded in float32 by a CPU that has faster instructions; of other hosts nobody can tell."""
        return self.execution.get("precision") == "fp32" and self.host == gethostname() and _cpu_has_bf16()


@cache
def _cpu_has_bf16() -> bool:
    return cpu_has_bf16()


def read_committed(files: Files, parts: Iterable[str]) -> tuple[list[Committed], list[CorruptStore]]:
    """The commits of `parts`, in that order, and an error for each that cannot be read."""
    return read_sound(lambda part: read_commit_as(Committed, files, part), list(parts))
