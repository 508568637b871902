"""How far a job is, from the store alone: works from another terminal or host, without torch."""

from dataclasses import asdict, dataclass
from datetime import datetime

from pipeline.claims import Claim, is_local_and_gone, read_claims
from pipeline.config import Config
from pipeline.jobs.plan import make_plan
from pipeline.records import JSON
from pipeline.store.commits import CommitRecord, read_commits
from pipeline.store.failures import Failure, read_failures
from pipeline.store.manifest import is_current, read_manifest


@dataclass(frozen=True)
class Status:
    """The state of a job."""

    store: str
    planned: int
    done: int
    pending: int
    pending_bytes: int
    running: list[JSON]
    """Claims of processes that are not known to be gone: part, host, pid, images."""
    failed: list[JSON]
    """Pending source shards whose last try failed: source, reason, host, time."""
    unplanned: list[str]
    """Committed parts that the configuration does not name."""
    written: int
    rejected: int
    images_per_second: float | None
    """Mean since the first commit, over all processes; None before the second commit."""
    eta_seconds: float | None
    complete: bool
    """Whether all is committed and the manifest says so."""

    def to_json(self) -> JSON:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.store}: {self.done} of {self.planned} source shards are committed",
            f"{self.written:,} samples written, {self.rejected:,} rejected",
        ]
        if self.images_per_second is not None:
            lines.append(f"{self.images_per_second:,.0f} images/s since the first commit")
        if self.eta_seconds is not None:
            lines.append(f"about {self.eta_seconds / 60:,.0f} min to go")
        lines += [
            f"running  {claim['part']} on {claim['host']}, process {claim['pid']}: {claim['images']:,} images"
            for claim in self.running
        ]
        lines += [f"failed   {fail['source']} at {fail['time']}: {fail['reason']}" for fail in self.failed]
        lines += [f"extra    {part}: committed, but not of this configuration" for part in self.unplanned]
        if self.complete:
            lines.append("complete")
        return "\n".join(lines)


def run(config: Config) -> Status:
    """Read the state of a job. Raises ConfigError and CorruptStore."""
    plan = make_plan(config)
    commits = read_commits(plan.store, sorted(plan.committed & plan.planned))
    running = [
        claim
        for claim in read_claims(plan.store)
        if claim.part in plan.planned - plan.committed and not is_local_and_gone(claim)
    ]
    pending_bytes = sum(shard.bytes or 0 for shard in plan.pending)
    rate, bytes_rate = _rates(commits)
    return Status(
        store=plan.store.root,
        planned=len(plan.shards),
        done=len(commits),
        pending=len(plan.pending),
        pending_bytes=pending_bytes,
        running=[_running(claim) for claim in running],
        failed=[_failed(failure) for failure in read_failures(plan.store, {s.part for s in plan.pending})],
        unplanned=sorted(plan.committed - plan.planned),
        written=sum(commit.written for commit in commits),
        rejected=sum(commit.rejected for commit in commits),
        images_per_second=rate,
        eta_seconds=pending_bytes / bytes_rate if bytes_rate and plan.pending else None,
        complete=not plan.pending and is_current(read_manifest(plan.store), plan.committed, plan.planned),
    )


def _running(claim: Claim) -> JSON:
    return {"part": claim.part, "host": claim.host, "pid": claim.pid, "images": claim.images}


def _failed(failure: Failure) -> JSON:
    return {"source": failure.source, "reason": failure.reason, "host": failure.host, "time": failure.time}


def _rates(commits: list[CommitRecord]) -> tuple[float | None, float | None]:
    """Images and source bytes per second between the first and the last commit."""
    if len(commits) < 2:
        return None, None
    commits = sorted(commits, key=lambda commit: commit.finished)
    first, *later = commits
    seconds = (datetime.fromisoformat(later[-1].finished) - datetime.fromisoformat(first.finished)).total_seconds()
    if seconds <= 0:
        return None, None
    images = sum(commit.seen for commit in later)
    return images / seconds, sum(commit.sources[0].bytes for commit in later) / seconds
