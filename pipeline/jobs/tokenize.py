"""The tokenization job: source shards of a configuration into committed parts of a store.

Any number of processes may run it on one store, started together or not, on one machine or many. They
share nothing but the store, join no process group, and may come and go at any time.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType

import torch

from pipeline.claims import Claims
from pipeline.config import Config
from pipeline.errors import SourceError, StoreError, VqtokError
from pipeline.files import is_url
from pipeline.jobs.bounds import Bounds, Load, find_bounds
from pipeline.jobs.encoding import ShardEncoder, shard_encoder
from pipeline.jobs.execution import refuse_other_execution
from pipeline.jobs.failing import end_hung_process, note_failure
from pipeline.jobs.plan import Plan, is_finished, job_identity, make_plan
from pipeline.jobs.progress import JobProgress
from pipeline.jobs.replaced import refuse_replaced_sources
from pipeline.models.pretrained import load_tokenizer
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import SourceShard
from pipeline.store import names
from pipeline.store.birth import Birth, CodebookRecord, create_or_compare, smallest_token_dtype
from pipeline.store.commits import CommitRecord, committed_parts, read_commits
from pipeline.store.failures import clear_failure
from pipeline.store.hierarchy import prepare_hierarchy, table_digest
from pipeline.store.manifest import is_current, read_manifest
from pipeline.store.snapshot import make_manifest
from pipeline.store.writer import EncodedShard, commit_part
from pipeline.world import World, current_world

_POLL_SECONDS = 0.5


@dataclass
class TokenizeResult:
    """What one process knows at its end."""

    store: str
    planned: int
    """Source shards of the configuration."""
    committed: int
    """How many of them are committed, by whomever."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why source shards failed in this process, by path."""
    images: int = 0
    """Samples that this process committed or rejected."""
    seconds: float = 0.0
    bounds: Bounds | None = None
    """What bounded this process; None where it committed nothing."""

    @property
    def complete(self) -> bool:
        """Whether every source shard of the configuration is committed."""
        return self.committed == self.planned

    def __str__(self) -> str:
        lines = [f"{path} stays pending: {reason}" for path, reason in self.failures.items()]
        if self.images:
            lines.append(f"{self.images:,} images in this process, {self.images / self.seconds:,.0f} images/s")
        if self.bounds:
            lines.append(str(self.bounds))
        lines.append(f"{self.store}: {self.committed} of {self.planned} source shards are committed")
        return "\n".join(lines)


def run(
    config: Config,
    *,
    wait: bool = True,
    allow_execution_change: bool = False,
    show_progress: bool = True,
) -> TokenizeResult:
    """Commit every pending source shard that nobody else is working on; finish with the manifest.

    Args:
        wait: at the end wait for the claims of other processes, and take over those that die.
        allow_execution_change: go on with another precision, device, batch size or library version than
            the store's parts were made with.

    Raises VqtokError for what concerns the whole job; a source shard that cannot be tokenized is recorded,
    left pending and named in the result.
    """
    plan = make_plan(config)
    refuse_replaced_sources(plan)
    if is_finished(plan, config):
        return TokenizeResult(plan.store.root, planned=len(plan.shards), committed=len(plan.shards))
    try:
        return _work_on(plan, config, wait, allow_execution_change, show_progress)
    except OSError as error:  # full, read-only, gone: sources and tokenizers have errors of their own
        cause = "server" if is_url(plan.store.root) else "disk"
        raise StoreError(
            f"{plan.store.root}: {error}; see to the {cause}, then run again: what is committed stays"
        ) from error


def _work_on(
    plan: Plan, config: Config, wait: bool, allow_execution_change: bool, show_progress: bool
) -> TokenizeResult:
    world = current_world()
    tokenizer = load_tokenizer(
        config.tokenizer.path, config.tokenize.layout, str(world.device), config.tokenize.precision
    )
    birth = make_birth(config, tokenizer)
    create_or_compare(plan.store, birth)
    with (
        _terminable(),
        Claims(plan.store, config.tokenize.claim_timeout) as claims,
        shard_encoder(config, tokenizer, world, lambda hang: end_hung_process(plan.store, claims, hang)) as encoder,
    ):
        if not allow_execution_change:
            refuse_other_execution(plan, encoder.execution)
        prepare_hierarchy(plan.store, birth, tokenizer.codebook.table)
        with JobProgress(plan, enabled=show_progress and world.is_main):
            result = _Worker(plan, birth, encoder, claims).work(_own_order(plan.shards, world), wait)
    if result.complete:
        write_manifest(plan, birth.codebook.vocab_size)
    return result


def make_birth(config: Config, tokenizer: Tokenizer) -> Birth:
    """What a store of this configuration is born as."""
    codebook = tokenizer.codebook
    return Birth(
        identity=job_identity(config),
        geometry=tokenizer.geometry(config.image.size),
        codebook=CodebookRecord(
            kind=codebook.kind,
            vocab_size=codebook.vocab_size,
            embedding_dim=codebook.embedding_dim,
            levels=codebook.levels,
            sha256=None if codebook.table is None else table_digest(codebook.table),
        ),
        var_input=tokenizer.var_input,
        token_dtype=smallest_token_dtype(codebook.vocab_size),
        fields=tuple(sorted(config.source.keep)),
        codec=config.tokenize.codec,
    )


def write_manifest(plan: Plan, vocab_size: int) -> None:
    """Bring the manifest up to date with the commits. Harmless when several processes do it."""
    manifest = read_manifest(plan.store)
    committed = committed_parts(plan.store)
    if is_current(manifest, committed, plan.planned):
        return
    commits = read_commits(plan.store, sorted(committed))
    generation = manifest.generation + 1 if manifest else 1
    made = make_manifest(commits, sorted(plan.planned), vocab_size, generation, manifest)
    plan.store.put(names.MANIFEST, made.to_json())


class _Worker:
    """The loop of one process over the pending source shards."""

    def __init__(self, plan: Plan, birth: Birth, encoder: ShardEncoder, claims: Claims) -> None:
        self._plan = plan
        self._birth = birth
        self._encoder = encoder
        self._claims = claims
        self._failures: dict[str, str] = {}
        self._failed_parts: set[str] = set()
        self._images = 0
        self._loads: list[Load] = []
        self._writing: tuple[SourceShard, Future[CommitRecord]] | None = None

    def work(self, shards: list[SourceShard], wait: bool) -> TokenizeResult:
        started = time.monotonic()
        with ThreadPoolExecutor(1, "write") as writer:
            while True:
                looked = time.monotonic()
                tried = self._encode(self._pending(shards), writer)
                self._finish_writing()
                if not self._pending(shards) or (not tried and not wait):
                    break
                if not tried:
                    # Looking costs many requests in a large store elsewhere.
                    time.sleep(max(_POLL_SECONDS, 5 * (time.monotonic() - looked)))
        committed = committed_parts(self._plan.store) & self._plan.planned
        return TokenizeResult(
            store=self._plan.store.root,
            planned=len(shards),
            committed=len(committed),
            failures=self._failures,
            images=self._images,
            seconds=time.monotonic() - started,
            bounds=find_bounds(self._loads),
        )

    def _pending(self, shards: list[SourceShard]) -> list[SourceShard]:
        done = committed_parts(self._plan.store) | self._failed_parts
        return [shard for shard in shards if shard.part not in done]

    def _encode(self, shards: list[SourceShard], writer: ThreadPoolExecutor) -> int:
        """Encode the source shards that nobody else has, each written beside the next; returns how many they were."""
        tried = 0
        outcomes = self._encoder.encode_shards(self._claimed(shards), self._tell)
        with contextlib.closing(outcomes):
            for shard, outcome in outcomes:
                tried += 1
                self._finish_writing()
                with self._recording_failure(shard):
                    if isinstance(outcome, Exception):
                        raise outcome
                    self._images += len(outcome.keys) + len(outcome.rejects)
                    self._writing = shard, writer.submit(self._commit, shard, outcome)
        return tried

    def _claimed(self, shards: list[SourceShard]) -> Iterator[SourceShard]:
        """Those that nobody else has, each claimed when it is asked for."""
        for shard in shards:
            if not self._claims.acquire(shard.part):
                continue
            if self._is_committed(shard):
                self._claims.release(shard.part)
                continue
            yield shard

    def _tell(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        self._claims.progress(shard.part, images, bytes_read)

    def _commit(self, shard: SourceShard, encoded: EncodedShard) -> CommitRecord:
        with self._encoder.watch.doing(lambda: f"write {shard.path}", shard):
            return commit_part(self._plan.store, self._birth, encoded)

    def _finish_writing(self) -> None:
        if self._writing is None:
            return
        (shard, future), self._writing = self._writing, None
        with self._recording_failure(shard):
            commit = future.result()
            self._loads.append(Load(commit.seconds, commit.threads, self._encoder.encoder.on_cpu))
            clear_failure(self._plan.store, shard.part)
            self._claims.release(shard.part)

    @contextlib.contextmanager
    def _recording_failure(self, shard: SourceShard) -> Iterator[None]:
        """Note why a source shard failed; go on after what is its own fault or that of its size."""
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, VqtokError) else f"{type(error).__name__}: {error}"
            self._failures[shard.path] = reason
            self._failed_parts.add(shard.part)
            note_failure(self._plan.store, shard, reason)
            self._claims.release(shard.part)
            if not isinstance(error, SourceError | MemoryError | torch.OutOfMemoryError):
                raise

    def _is_committed(self, shard: SourceShard) -> bool:
        try:
            self._plan.store.stat(names.commit(shard.part))
        except FileNotFoundError:
            return False
        return True


def _own_order(shards: list[SourceShard], world: World) -> list[SourceShard]:
    """The same source shards for every process, each beginning elsewhere, so that they seldom collide."""
    first = len(shards) * (world.rank % world.size) // world.size
    return shards[first:] + shards[:first]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that claims are released on the way out."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the way out
        raise SystemExit(128 + signum)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
