"""What processes know at the end of a tokenization job. Imports neither torch nor Zarr."""

from collections.abc import Sequence

from pydantic import Field

from pipeline.errors import VqtokError
from pipeline.jobs.bounds import Bounds, Load, find_bounds
from pipeline.jobs.missing import summed, without
from pipeline.jobs.plan import Plan, with_late_commits
from pipeline.printing import one_line
from pipeline.records import Record
from pipeline.store.schema.failures import read_failures
from pipeline.store.schema.manifest import is_current

NO_ROWS = "no row is in the store: all samples were rejected, or there were none; vqtok status has the reasons"


class TokenizeResult(Record):
    """What one process, or several together, know at their end."""

    store: str
    planned: int
    """Source shards of the configuration."""
    committed: int
    """How many of them are committed, by whomever."""
    failures: dict[str, str] = Field(default={})
    """Why source shards failed in these processes, by path."""
    images: int = 0
    """Samples that these processes committed or rejected."""
    rejected: int = 0
    """How many of them were rejected."""
    unlabelled: int = 0
    """How many of the others have no label, where the configuration asks for labels."""
    fields_missing: dict[str, int] = Field(default={})
    """And how many lack a kept field, by its name."""
    is_empty: bool = False
    """Whether the store is complete and has no row."""
    seconds: float = 0.0
    loads: tuple[Load, ...] = ()
    """What the stages did."""
    idle: float | None = None
    """Share of the CPU time of their cores that nobody used meanwhile; None where that is unknown."""
    processes: int = 1

    @property
    def complete(self) -> bool:
        """Whether every source shard of the configuration is committed."""
        return self.committed == self.planned

    @property
    def succeeded(self) -> bool:
        """Whether all is committed, and is something."""
        return self.complete and not self.is_empty

    @property
    def bounds(self) -> Bounds | None:
        """What bounded them; None where they committed nothing."""
        return find_bounds(self.loads, self.idle)

    @property
    def pending_failures(self) -> list[str]:
        """A line for each failure; none where all is committed, for others have made good what failed here."""
        if self.complete:
            return []
        return [one_line(f"{path} stays pending: {reason}") for path, reason in self.failures.items()]

    def __str__(self) -> str:
        lines = self.pending_failures
        if self.images:
            who = "this process" if self.processes == 1 else f"{self.processes} processes"
            rejects = f", {self.rejected:,} rejected" if self.rejected else ""
            lines.append(
                f"{self.images - self.rejected:,} images{rejects} in {who}, {self.images / self.seconds:,.0f} images/s"
            )
        if lacking := without(self.unlabelled, self.fields_missing):
            lines.append(lacking)
        if self.bounds:
            lines.append(str(self.bounds))
        lines.append(f"{self.store}: {self.committed} of {self.planned} source shards are committed")
        if self.is_empty:
            lines.append(NO_ROWS)
        return "\n".join(lines)


def together(results: Sequence[TokenizeResult]) -> TokenizeResult:
    """What processes that worked side by side came to, at least one."""
    last = max(results, key=lambda result: result.committed)
    idle = [result.idle for result in results if result.idle is not None]
    return TokenizeResult(
        store=last.store,
        planned=last.planned,
        committed=last.committed,
        failures={path: reason for result in results for path, reason in result.failures.items()},
        images=sum(result.images for result in results),
        rejected=sum(result.rejected for result in results),
        unlabelled=sum(result.unlabelled for result in results),
        fields_missing=summed(result.fields_missing for result in results),
        is_empty=any(result.is_empty for result in results),
        seconds=max(result.seconds for result in results),
        loads=tuple(load for result in results for load in result.loads),
        idle=min(idle, default=None),
        processes=len(results),
    )


def found_result(plan: Plan) -> TokenizeResult:
    """What the store tells when all processes have ended.

    Raises VqtokError where all is committed and the manifest does not say so.
    """
    plan = with_late_commits(plan)
    pending = {shard.part for shard in plan.pending}
    if not pending and not is_current(plan.manifest, plan.committed, plan.planned):
        raise VqtokError(f"{plan.store.root}: all is committed, but the manifest is not up to date: run it again")
    return TokenizeResult(
        store=plan.store.root,
        planned=len(plan.shards),
        committed=len(plan.shards) - len(pending),
        failures={failure.source: failure.reason for failure in read_failures(plan.store, pending)},
        is_empty=not pending and plan.has_no_rows,
    )
