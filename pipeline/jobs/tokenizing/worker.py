"""The loop of one process over the pending source shards of a job, and what it knows at its end."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from pipeline.claims import Claims
from pipeline.errors import SourceError, VqtokError
from pipeline.jobs.bounds import Load, in_all
from pipeline.jobs.plan import Plan
from pipeline.jobs.tokenizing.failures import note_failure
from pipeline.jobs.work.cores import IdleCores
from pipeline.jobs.work.encoding import ShardEncoder
from pipeline.jobs.work.handout import Handout
from pipeline.jobs.work.result import TokenizeResult
from pipeline.records import SourceShard
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.commits import CommitRecord, is_committed
from pipeline.store.schema.failures import clear_failure
from pipeline.store.writing.writer import EncodedShard, commit_part
from pipeline.threads import is_thread_shortage


class Worker:
    """The loop of one process over the pending source shards."""

    def __init__(self, plan: Plan, birth: Birth, encoder: ShardEncoder, claims: Claims, handout: Handout) -> None:
        self._plan = plan
        self._birth = birth
        self._encoder = encoder
        self._claims = claims
        self._handout = handout
        self._failures: dict[str, str] = {}
        self._failed: list[SourceShard] = []
        self._images = 0
        self._loads: list[Load] = []
        self._writing: tuple[SourceShard, Future[CommitRecord]] | None = None

    def work(self, wait: bool) -> TokenizeResult:
        started, idle = time.monotonic(), IdleCores(self._encoder.threads["cores"])
        with ThreadPoolExecutor(1, "write") as writer:
            writer.submit(int).result()  # starts its thread, which may be impossible when memory is short later
            for shards in self._handout.rounds(wait):
                self._encode(shards, writer)
                self._finish_writing()
        return TokenizeResult(
            store=self._plan.store.root,
            planned=len(self._plan.shards),
            committed=self._count_committed(),
            failures=self._failures,
            images=self._images,
            seconds=time.monotonic() - started,
            loads=in_all(self._loads),
            idle=idle.share(),
        )

    def _count_committed(self) -> int:
        if not self._handout.is_over:
            return len(self._handout.list_commits() & self._plan.planned)
        # All others have been handed out and are done, or were seen to be committed.
        pending = [shard for shard in self._failed if not is_committed(self._plan.store, shard.part)]
        return len(self._plan.shards) - len(pending)

    def _encode(self, shards: Iterator[SourceShard], writer: ThreadPoolExecutor) -> None:
        """Encode source shards, each written beside the next."""
        outcomes = self._encoder.encode_shards(shards, self._tell)
        with contextlib.closing(outcomes):
            for shard, outcome in outcomes:
                self._finish_writing()
                with self._recording_failure(shard):
                    if isinstance(outcome, Exception):
                        raise outcome
                    self._images += len(outcome.keys) + len(outcome.rejects)
                    self._writing = shard, writer.submit(self._commit, shard, outcome)

    def _tell(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        self._claims.progress(shard.part, images, bytes_read)

    def _commit(self, shard: SourceShard, encoded: EncodedShard) -> CommitRecord:
        with self._encoder.watch.doing(lambda: f"write {shard.path}", shard):
            commit = commit_part(self._plan.store, self._birth, encoded)
            clear_failure(self._plan.store, shard.part)
            self._claims.release(shard.part)
            return commit

    def _finish_writing(self) -> None:
        if self._writing is None:
            return
        (shard, future), self._writing = self._writing, None
        with self._recording_failure(shard):
            commit = future.result()
            self._loads.append(
                Load(commit.seconds, commit.threads, self._encoder.encoder.on_cpu, self._encoder.bf16_helps)
            )

    @contextlib.contextmanager
    def _recording_failure(self, shard: SourceShard) -> Iterator[None]:
        """Note why a source shard failed; go on after what is its own fault or that of its size."""
        try:
            yield
        except Exception as caught:
            error = MemoryError(str(caught)) if is_thread_shortage(caught) else caught
            kind = "" if isinstance(error, VqtokError) else f"{type(error).__name__}: "
            reason = kind + (str(error) or "it came without a message")
            self._failures[shard.path] = reason
            self._failed.append(shard)
            note_failure(self._plan.store, shard, reason)
            self._claims.release(shard.part)
            if not isinstance(error, SourceError | MemoryError | torch.OutOfMemoryError):
                raise
