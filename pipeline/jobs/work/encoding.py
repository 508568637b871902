"""Source shards into their tokens: one in, one out, and at work on several at their borders."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from pipeline.config import Config, TokenizeConfig
from pipeline.errors import SourceError
from pipeline.jobs.work.decoding import End, Failed, Images, ShardDecoder
from pipeline.jobs.work.execution import describe_execution
from pipeline.jobs.work.precision import bf16_would_help
from pipeline.jobs.work.watch import Hang, Watch
from pipeline.models.batch_encoder import BatchEncoder, Encoding
from pipeline.models.tokenizer import Tokenizer
from pipeline.overlap import prefetch
from pipeline.records import JSON, Reject, SourceShard
from pipeline.source.batches import ImageBatch
from pipeline.source.images.memory import memory_errors
from pipeline.source.shards.opening import shard_name
from pipeline.store.schema.birth import smallest_token_dtype
from pipeline.store.schema.commits import commonest_reasons
from pipeline.store.types import Array
from pipeline.store.writing.writer import EncodedShard
from pipeline.threads import cpu_threads, one_thread
from pipeline.world import World

# Batches decoded, and handed to the encoder, before the tokens of the one in work are there; more where one batch
# does not occupy the encoder.
_BATCHES_AHEAD = 2

Progress = Callable[[SourceShard, int, int], None]
"""Called with a source shard, and its images done and bytes read."""

Outcome = tuple[SourceShard, EncodedShard | Exception]


@dataclass
class _Rows:
    """What has come of a source shard so far."""

    tokens: list[Array] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    fields: dict[str, list[bytes | None]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return len(self.keys) + len(self.rejects)

    def add(self, batch: ImageBatch) -> None:
        self.rejects += batch.rejects
        for row in batch.rows:
            self.keys.append(row.key)
            self.labels.append(row.label)
            for name, values in self.fields.items():
                values.append(row.fields[name])


@contextlib.contextmanager
def shard_encoder(
    config: Config, tokenizer: Tokenizer, world: World, on_hang: Callable[[Hang], None] | None = None
) -> Iterator["ShardEncoder"]:
    """A ShardEncoder with threads of its own, as many as the process has CPU cores.

    Args:
        on_hang: called where a step takes longer than `tokenize.stall_timeout`, in a thread of its own; without it
            nobody looks.
    """
    settings = config.tokenize
    with (
        cpu_threads(1),  # the threads below are the parallelism
        Watch(settings.stall_timeout, on_hang) as watch,
        BatchEncoder(tokenizer, world.device, world.cores) as encoder,
        _decoders(settings, encoder, world.cores) as (decoders, decode_threads),
    ):
        at_once = encoder.images_at_once(config.image.size, settings.batch_size)
        yield ShardEncoder(
            config,
            tokenizer,
            encoder,
            decoders,
            describe_execution(config, world.device, at_once),
            {"read": 1, "decode": decode_threads, "encode": encoder.threads, "write": 1, "cores": world.cores},
            watch,
            bf16_would_help(settings.precision, world.device),
        )


@contextlib.contextmanager
def _decoders(settings: TokenizeConfig, encoder: BatchEncoder, cores: int) -> Iterator[tuple[Executor, int]]:
    """Threads to decode in, and how many they are."""
    if settings.decode_workers == "auto" and encoder.on_cpu:
        # With no more threads than cores, none has to be taken off its core while it holds the interpreter's lock,
        # which the others then wait for: a tenth more small images.
        yield encoder.pool, encoder.threads
        return
    threads = cores if settings.decode_workers == "auto" else settings.decode_workers
    with ThreadPoolExecutor(threads, "decode", one_thread) as pool:
        yield pool, threads


@dataclass(frozen=True)
class ShardEncoder:
    """Turns source shards into tokens with one tokenizer on one device.

    Reading, decoding and encoding each run while the others do, also from the last batch of one source shard to
    the first of the next.
    """

    config: Config
    tokenizer: Tokenizer
    encoder: BatchEncoder
    decoders: Executor
    execution: JSON
    threads: dict[str, int]
    """How many each stage has, for the commit records."""
    watch: Watch
    bf16_helps: bool
    """Whether the device has faster instructions for bfloat16 than for what it does."""

    def encode_shards(
        self, shards: Iterable[SourceShard], progress: Progress = lambda shard, images, bytes_read: None
    ) -> Generator[Outcome, None, None]:
        """Encode source shards in order: each with what it became, or with what went wrong.

        `shards` is iterated over in another thread, some batches ahead. What may be wrong: SourceError for one
        that cannot be read to its end as planned, or that rejects more than `tokenize.max_reject_rate`;
        MemoryError or RuntimeError when the machine fails. Whatever `shards` raises is raised.
        """
        decoder = ShardDecoder(self.config, self.decoders, self.threads["decode"], self.watch)
        begun = prefetch(self._begin(decoder.decode_shards(shards)), self._batches_ahead, decoder.interrupt)
        finished = time.monotonic()
        rows: _Rows | None = None
        failed: SourceShard | None = None
        with contextlib.closing(begun):
            for step, encoding in begun:
                if step.shard is failed:
                    continue  # what was under way when it failed
                if isinstance(step, Failed):
                    yield step.shard, step.error
                    rows, finished = None, time.monotonic()
                    continue
                rows = rows or self._no_rows()
                try:
                    if isinstance(step, Images):
                        self._add(rows, step, encoding)
                        progress(step.shard, rows.seen, step.bytes_read)
                        continue
                    outcome: EncodedShard | Exception = self._finish(rows, step, time.monotonic() - finished)
                except Exception as error:
                    decoder.skip(step.shard)
                    failed, outcome = step.shard, error
                rows, finished = None, time.monotonic()
                yield step.shard, outcome

    def encode_images(self, img_B3HW: Tensor) -> Array:
        """Tokens int64 [B, L_total] of uint8 images, blocks concatenated in order.

        Raises MemoryError where the machine has too little.
        """
        with memory_errors():
            return self.encoder.submit(img_B3HW, len(img_B3HW)).result()[0]

    def _begin(self, steps: Iterator[Images | End | Failed]) -> Iterator[tuple[Images | End | Failed, Encoding | None]]:
        """Each step; what is to be encoded has been handed to the encoder. Runs in a thread of its own."""
        one_thread()
        for step in steps:
            if isinstance(step, Images) and step.batch.rows:
                yield step, self.encoder.submit(step.batch.img_B3HW, len(step.batch.rows))
            else:
                yield step, None

    @cached_property
    def _batches_ahead(self) -> int:
        """As many as occupy all threads of the encoder; batches of small images are a piece or two for one of them."""
        batch_size = self.config.tokenize.batch_size
        at_once = self.encoder.images_at_once(self.config.image.size, batch_size)
        return max(_BATCHES_AHEAD, math.ceil(self.encoder.threads * at_once / batch_size))

    def _no_rows(self) -> _Rows:
        tokens = np.empty((0, self.tokenizer.geometry(self.config.image.size).num_tokens), self._dtype)
        return _Rows([tokens], fields={name: [] for name in self.config.source.keep})

    @cached_property
    def _dtype(self) -> np.dtype[np.unsignedinteger]:
        return np.dtype(smallest_token_dtype(self.tokenizer.codebook.vocab_size))

    def _add(self, rows: _Rows, step: Images, encoding: Encoding | None) -> None:
        if encoding is not None:
            with memory_errors(), step.stages.watched("encode", f"the batch behind image {rows.seen}"):
                tokens, seconds = encoding.result()
            step.stages.add("encode", seconds, len(tokens))
            rows.tokens.append(tokens.astype(self._dtype))
        rows.add(step.batch)

    def _finish(self, rows: _Rows, end: End, wall_s: float) -> EncodedShard:
        self._check_reject_rate(end.shard, rows)
        return EncodedShard(
            part=end.shard.part,
            sources=end.sources,
            tokens=np.concatenate(rows.tokens),
            keys=rows.keys,
            labels=rows.labels,
            fields=rows.fields,
            rejects=rows.rejects,
            ignored=end.ignored,
            execution=self.execution,
            seconds={**end.stages.seconds, "wall": round(wall_s, 3)},
            counts=end.stages.counts,
            threads=self.threads,
        )

    def _check_reject_rate(self, shard: SourceShard, rows: _Rows) -> None:
        limit = self.config.tokenize.max_reject_rate
        if rows.seen and len(rows.rejects) / rows.seen > limit:
            raise SourceError(
                f"{shard_name(shard)}: {len(rows.rejects)} of {rows.seen} samples rejected, more than "
                f"tokenize.max_reject_rate = {limit}: {commonest_reasons(reject.reason for reject in rows.rejects)}"
            )
