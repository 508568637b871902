"""What a process tokenizes with: a tokenizer on a device, and threads."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.config import Config, TokenizeConfig
from pipeline.jobs.work.execution import describe_execution
from pipeline.jobs.work.precision import bf16_would_help
from pipeline.jobs.work.watch import Hang, Watch
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.records import JSON
from pipeline.shortage import memory_errors
from pipeline.source.batches import images_of_batch
from pipeline.store.types import Array
from pipeline.threads import cpu_threads, one_thread
from pipeline.world import World

# Batches that are decoded and handed to the encoder while an earlier one is still being encoded; more of them where
# one batch is too small to keep the encoder busy.
_BATCHES_AHEAD = 2


class Turns:
    """Lets a stage serve one source shard at a time: two of them overlap only where one ends and the next begins."""

    def __init__(self) -> None:
        self.reading = threading.Semaphore()
        """For reading and decoding. A semaphore, for the thread that gives it back may be another than took it."""
        self.writing = threading.Lock()
        self._last_s = 0.0

    def occupied(self, since: float) -> float:
        """Seconds that count for a source shard which was begun at `since` and has now been encoded.

        They begin at `since`, or when the one before had been encoded, where that was later: added up over source
        shards they are the time that passed.
        """
        now = time.monotonic()
        began, self._last_s = max(since, self._last_s), now
        return now - began


@dataclass(frozen=True)
class Machine:
    """A tokenizer on a device, and the threads that keep it busy. Several source shards may be in work at once."""

    encoder: BatchEncoder
    decoders: Executor
    execution: JSON
    """How tokens are made here, for the commit records."""
    threads: dict[str, int]
    """How many each stage has, for the commit records."""
    watch: Watch
    batches_ahead: int
    bf16_helps: bool
    """Whether the device has faster instructions for bfloat16 than for what it does."""
    turns: Turns = field(default_factory=Turns)

    def encode(self, img_B3HW: Tensor, batch_size: int) -> Array:
        """Tokens int64 [B, L_total] of uint8 images, blocks concatenated in order; at most `batch_size` at once.

        Raises MemoryError where the machine has too little.
        """
        with memory_errors():
            return self.encoder.submit(img_B3HW, len(img_B3HW), batch_size).result()[0]


@contextlib.contextmanager
def this_machine(
    config: Config, tokenizer: Tokenizer, world: World, on_hang: Callable[[Hang], None] | None = None
) -> Iterator[Machine]:
    """The device of this process, with threads of its own, as many as the process has CPU cores.

    Args:
        on_hang: called where a step takes longer than `tokenize.stall_timeout`, in a thread of its own; without it
            nobody looks.
    """
    settings, image_size = config.tokenize, config.image.size
    with (
        cpu_threads(1),  # the threads below are the parallelism
        Watch(settings.stall_timeout, on_hang) as watch,
        BatchEncoder(tokenizer, world.device, world.cores) as encoder,
        _decoders(settings, encoder, world.cores) as (decoders, decode_threads),
    ):
        images = images_of_batch(settings.batch_size, config.image.num_views or 1)
        at_once = encoder.images_at_once(image_size, images)
        yield Machine(
            encoder,
            decoders,
            describe_execution(config, world.device, at_once),
            {"read": 1, "decode": decode_threads, "encode": encoder.threads, "write": 1, "cores": world.cores},
            watch,
            # As many as occupy all threads of the encoder; a batch of small images is a piece or two for one of them.
            max(_BATCHES_AHEAD, math.ceil(encoder.threads * at_once / images)),
            bf16_would_help(settings.precision, world.device),
        )


@contextlib.contextmanager
def _decoders(settings: TokenizeConfig, encoder: BatchEncoder, cores: int) -> Iterator[tuple[Executor, int]]:
    """Threads to decode in, and how many they are."""
    if settings.decode_workers == "auto" and encoder.on_cpu:
        # One thread per core: a thread that the system takes off its core while it holds the interpreter's lock
        # stalls all others, which costs a tenth of the speed with small images.
        yield encoder.pool, encoder.threads
        return
    threads = cores if settings.decode_workers == "auto" else settings.decode_workers
    with ThreadPoolExecutor(threads, "decode", one_thread) as pool:
        yield pool, threads
