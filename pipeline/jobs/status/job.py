"""How far a job is, from the store alone: works from another terminal or host. Imports neither torch nor Zarr."""

import contextlib
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pipeline.claims import Claim, claimed_parts, find_claim, is_local_and_gone
from pipeline.config import Config
from pipeline.errors import StoreError
from pipeline.files.each import read_sound
from pipeline.jobs.bounds import Bounds, find_bounds
from pipeline.jobs.missing import summed
from pipeline.jobs.plan import Plan, differences_told, make_plan
from pipeline.jobs.rejects import ReasonCounts, RejectReason, count_reasons, most_common, read_rejects
from pipeline.jobs.status.rates import Rate, WorkDone, rate_of
from pipeline.jobs.status.summaries import Committed, read_committed
from pipeline.jobs.work.starting import processes_of, read_starts
from pipeline.records import JSON, SourceShard
from pipeline.store.schema.birth import is_born, refuse_lost_birth
from pipeline.store.schema.commits import committed_parts, late_commits
from pipeline.store.schema.failures import JOB, Failure, read_failures
from pipeline.store.schema.manifest import Manifest, is_current, lost_parts, lost_records, refuse_lost_arrays

RECENT_SECONDS = 600.0

_ASKED_FOR = 16
"""Source shards of which each is asked for, where no more seem to be pending."""


@dataclass(frozen=True)
class Running:
    """A source shard that a process is working on, unless that process is known to be gone."""

    part: str
    source: str
    host: str
    pid: int
    since: str
    """UTC by the clock of that host, ISO 8601."""
    seconds: float | None
    """Since then, by our clock."""
    images: int
    bytes: int
    """Of the source shard, read so far."""
    heartbeat_seconds: float | None
    """Since this observer saw the heartbeat change; None where it has looked but once."""
    stale: bool
    """Whether that is longer than `tokenize.claim_timeout`: the next free process takes over."""


@dataclass(frozen=True)
class Failed:
    """A pending source shard whose last try failed."""

    source: str
    reason: str
    host: str
    time: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Status:
    """The state of a job."""

    store: str
    time: str
    """Of this look: UTC by our clock, ISO 8601."""
    exists: bool
    """Whether the store is there: the first processes of a job make it when they have loaded PyTorch."""
    planned: int
    """Source shards of the configuration."""
    done: int
    """How many of them are committed; one whose record is damaged counts, too."""
    pending: int
    planned_bytes: int
    pending_bytes: int
    fraction_done: float
    """Of the bytes; those that are read of source shards in work count."""
    running: list[Running]
    starting: int
    """Processes that were started and are not at work yet."""
    failed: list[Failed]
    gave_up: Failed | None
    """Why a process of the job ended before its work was done, where nothing was committed since."""
    unplanned: list[str]
    """Committed parts that the configuration does not name."""
    written: int
    rejected: int
    unlabelled: int
    """Written samples without a label, where the configuration asks for labels."""
    missing: dict[str, int]
    """Written samples without a kept field, by its name."""
    rejects: list[RejectReason]
    """Rejected samples by reason, the most frequent first."""
    images_per_second: float | None
    """Over all processes, in the time in which anybody worked; None while there is too little to tell."""
    recent_images_per_second: float | None
    """The same for the last ten minutes; None where nothing was done in them."""
    bounds: Bounds | None
    """How busy the stages were for what is committed, and which of them bounds; None where the commits do not tell."""
    eta_seconds: float | None
    """Until all is committed at the recent rate, else at the mean; supposes that somebody is at work."""
    complete: bool
    """Whether all is committed and the manifest says so."""
    differs: list[str]
    """Fields in which the configuration asks for other tokens than the store holds, with both values: `vqtok tokenize`
    refuses then."""
    damaged: list[str]
    """What could not be read, a message for each file; what is in it is missing from the figures."""

    def to_json(self) -> JSON:
        return asdict(self)


def run(config: Config) -> Status:
    """The state of a job. Raises ConfigError."""
    return Observer(config).look()


class Observer:
    """Looks at a job, once or again and again. Commits never change, so each is read once.

    Raises ConfigError.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._differs: list[str] | None = None
        self._plan = make_plan(config)
        self._shards = {shard.part: shard for shard in self._plan.shards}
        self._asks_for_labels = config.source.label is not None
        self._timeout_s = config.tokenize.claim_timeout
        self._gpu_decodes = config.image.gpu_decodes
        self._commits: dict[str, Committed] = {}
        self._reasons: dict[str, ReasonCounts] = {}
        self._beats: dict[str, tuple[Claim, float]] = {}

    def look(self) -> Status:
        """The state of the job now."""
        damage: list[StoreError] = []
        self._plan = replace(self._plan, committed=committed_parts(self._plan.store))
        manifest = self._manifest(damage)
        plan = self._plan = self._with_late_commits(manifest)
        if lost := lost_parts(plan.store, manifest, plan.committed):
            damage.append(lost_records(plan.store, lost))
        elif manifest and not plan.pending:
            try:
                refuse_lost_arrays(plan.store, manifest.parts)
            except StoreError as error:
                damage.append(error)
        commits = self._read_commits(damage)
        pending = plan.pending
        running = self._running({shard.part for shard in pending}, damage)
        planned_bytes, pending_bytes = _bytes(plan.shards), _bytes(pending)
        bytes_left = pending_bytes - sum(claim.bytes for claim in running if not claim.stale)
        mean, recent = _rates(commits, running)
        speed = recent or mean
        failures = read_failures(plan.store, {shard.part for shard in pending} | {JOB})
        return Status(
            store=plan.store.root,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            exists=bool(plan.committed) or is_born(plan.store),
            planned=len(plan.shards),
            done=len(plan.committed & plan.planned),
            pending=len(pending),
            planned_bytes=planned_bytes,
            pending_bytes=pending_bytes,
            fraction_done=1 - bytes_left / planned_bytes if planned_bytes else 1.0 - bool(pending),
            running=running,
            starting=self._starting(),
            failed=[_failed(failure) for failure in failures if failure.part != JOB],
            gave_up=_last_words(failures, commits) if pending else None,
            unplanned=sorted(plan.committed - plan.planned),
            written=sum(commit.written for commit in commits),
            rejected=sum(commit.rejected for commit in commits),
            unlabelled=sum(commit.unlabelled for commit in commits) if self._asks_for_labels else 0,
            missing=summed(commit.missing for commit in commits),
            rejects=most_common(self._reasons.get(commit.part, {}) for commit in commits),
            images_per_second=mean.images_per_second if mean else None,
            recent_images_per_second=recent.images_per_second if recent else None,
            bounds=find_bounds(
                (commit.load(self._gpu_decodes) for commit in commits), seconds=mean.seconds if mean else 0.0
            ),
            eta_seconds=bytes_left / speed.bytes_per_second if pending and speed and speed.bytes_per_second else None,
            complete=not (pending or damage) and is_current(manifest, plan.committed, plan.planned),
            differs=self._differences(),
            damaged=[str(error) for error in damage],
        )

    def _differences(self) -> list[str]:
        if self._differs is None:
            with contextlib.suppress(StoreError):  # of a damaged birth, which is told of with the manifest
                if birth := self._plan.birth:
                    self._differs = differences_told(self._config, birth)
        return self._differs or []

    def _with_late_commits(self, manifest: Manifest | None) -> Plan:
        """The plan, with commits that the listing lacks, as that of some object stores does for a while: those that the
        manifest names, and the last ones of a job."""
        plan = self._plan
        lacking = {part.part for part in manifest.parts} - plan.committed if manifest else set()
        if len(plan.pending) <= _ASKED_FOR:
            lacking |= plan.planned - plan.committed
        return replace(plan, committed=plan.committed | late_commits(plan.store, lacking)) if lacking else plan

    def _read_commits(self, damage: list[StoreError]) -> list[Committed]:
        """Commits of the planned source shards, sorted by part; the reasons of their rejects beside them."""
        parts = sorted(self._plan.committed & self._shards.keys())
        new, unread = read_committed(self._plan.store, (part for part in parts if part not in self._commits))
        self._commits |= {commit.part: commit for commit in new}
        uncounted = [part for part, commit in self._commits.items() if commit.rejected and part not in self._reasons]
        reasons, uncountable = read_sound(lambda part: (part, self._count(self._commits[part])), uncounted)
        self._reasons |= dict(reasons)
        damage += unread + uncountable
        return [self._commits[part] for part in parts if part in self._commits]

    def _count(self, commit: Committed) -> ReasonCounts:
        return count_reasons(commit.source, read_rejects(self._plan.store, commit))

    def _manifest(self, damage: list[StoreError]) -> Manifest | None:
        try:
            if self._plan.birth is None:
                refuse_lost_birth(self._plan.store)
            return self._plan.manifest
        except StoreError as error:
            damage.append(error)
            return None

    def _running(self, pending: set[str], damage: list[StoreError]) -> list[Running]:
        store = self._plan.store
        parts = [part for part in claimed_parts(store) if part in pending]
        claims, unread = read_sound(lambda part: (part, find_claim(store, part)), parts)
        damage += unread
        return [
            self._observed(claim, self._shards[part])
            for part, claim in claims
            if claim is not None and not is_local_and_gone(claim)
        ]

    def _starting(self) -> int:
        starts = read_starts(self._plan.store)
        return sum(processes_of(start) for start in starts if self._last_change(start)[1] < self._timeout_s)

    def _last_change(self, claim: Claim) -> tuple[Claim | None, float]:
        """The claim at the look before, and seconds since it was seen to change."""
        now = time.monotonic()
        last, changed = self._beats.get(claim.part, (None, now))
        if last != claim:
            changed = now
            self._beats[claim.part] = claim, changed
        return last, now - changed

    def _observed(self, claim: Claim, shard: SourceShard) -> Running:
        last, seconds = self._last_change(claim)
        return Running(
            part=shard.part,
            source=shard.path,
            host=claim.host,
            pid=claim.pid,
            since=claim.since,
            seconds=_seconds_since(claim.since),
            images=claim.images,
            bytes=claim.bytes if shard.bytes is None else min(claim.bytes, shard.bytes),
            heartbeat_seconds=None if last is None else seconds,
            stale=seconds >= self._timeout_s,
        )


def _seconds_since(moment: str) -> float | None:
    """By our clock; None for what is no time."""
    try:
        return max(time.time() - datetime.fromisoformat(moment).timestamp(), 0.0)
    except (ValueError, OverflowError):
        return None


def _rates(commits: list[Committed], running: list[Running]) -> tuple[Rate | None, Rate | None]:
    """Of all commits, and of the last minutes, which count source shards in work as well."""
    now = time.time()
    done = [commit.work() for commit in commits]
    in_work = [
        WorkDone(now - claim.seconds, now, claim.images, claim.bytes)
        for claim in running
        if claim.seconds is not None and not claim.stale
    ]
    return rate_of(done), rate_of(done + in_work, now - RECENT_SECONDS, now)


def _failed(failure: Failure) -> Failed:
    return Failed(failure.source, failure.reason, failure.host, failure.time)


def _last_words(failures: list[Failure], commits: list[Committed]) -> Failed | None:
    """Why the job ended, unless it has gone on since."""
    note = next((failure for failure in failures if failure.part == JOB), None)
    with contextlib.suppress(ValueError):  # what is no time is not compared
        if note and any(commit.finished > datetime.fromisoformat(note.time) for commit in commits):
            return None
    return _failed(note) if note else None


def _bytes(shards: list[SourceShard]) -> int:
    return sum(shard.bytes or 0 for shard in shards)
