"""What a process tokenizes with: a tokenizer on a device, and threads."""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.jobs.work.batch_fit import refuse_large_batch, too_large
from pipeline.jobs.work.execution import describe_device, describe_execution
from pipeline.jobs.work.failures import end_process_without_gpu
from pipeline.jobs.work.precision import bf16_would_help
from pipeline.jobs.work.search import use_fast_search
from pipeline.jobs.work.watch import Hang, Watch
from pipeline.models.batch_encoder import BatchEncoder, Encoding
from pipeline.models.lane import Tokens
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.process.shortage import is_gpu_failure, memory_errors
from pipeline.process.threads import cpu_threads, one_thread, use_device
from pipeline.records import JSON, SourceShard
from pipeline.source.batches import images_of_batch
from pipeline.store.types import Array
from pipeline.world import World

# Batches that are decoded and handed to the encoder while an earlier one is still being encoded; more of them where
# one batch is too small to keep the encoder busy.
_BATCHES_AHEAD = 2

# nvJPEG decodes for one thread at a time; the others look at headers and resize meanwhile.
_NVJPEG_THREADS = 4


OnGpuFailure = Callable[[RuntimeError, SourceShard | None], object]


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

    device: torch.device
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
    on_gpu_failure: OnGpuFailure
    turns: Turns = field(default_factory=Turns)

    def looking_at_gpu(self, shard: SourceShard | None) -> contextlib.AbstractContextManager[None]:
        """Call `on_gpu_failure` where the GPU fails in what is done for a source shard."""
        return _looking_at_gpu(self.on_gpu_failure, shard)

    def encode(self, img_B3HW: Tensor, batch_size: int) -> Array:
        """Tokens int64 [B, L_total] of uint8 images, blocks concatenated in order; at most `batch_size` at once.

        Raises as `result_of`.
        """
        with self.looking_at_gpu(None):
            return self.result_of(self.encoder.submit(img_B3HW, len(img_B3HW), batch_size), batch_size)[0]

    def result_of(self, encoding: Encoding, batch_size: int) -> tuple[Tokens, float]:
        """Tokens and seconds, see `Encoding.result`, of a batch of at most `batch_size` images.

        Raises ConfigError where a GPU has too little memory for so many, for it would have for no batch of the job;
        MemoryError where the machine has too little.
        """
        try:
            with memory_errors():
                return encoding.result()
        except MemoryError as error:
            if self.encoder.on_cpu:
                raise
            raise too_large(batch_size, batch_size // 2, str(self.execution["device"]), str(error)) from error


@contextlib.contextmanager
def this_machine(
    config: Config,
    tokenizer: Tokenizer,
    world: World,
    on_hang: Callable[[Hang], None] | None = None,
    on_gpu_failure: OnGpuFailure = lambda error, shard: end_process_without_gpu(error, shard),
) -> Iterator[Machine]:
    """The device of this process, with threads of its own, as many as the process has CPU cores.

    Args:
        on_hang: called where a step takes longer than `tokenize.stall_timeout`, in a thread of its own; without it
            nobody looks.
        on_gpu_failure: called where the GPU fails, in whatever thread that is, with the source shard that was in work
            there, if any; by default it ends the process.

    Raises ConfigError where a batch does not fit into the memory of the GPU.
    """
    settings, image_size = config.tokenize, config.image.size
    with (
        cpu_threads(1),  # the threads below are the parallelism
        repeatable_convolutions(),
        Watch(settings.stall_timeout, on_hang) as watch,
        BatchEncoder(tokenizer, world.device, world.cores, settings.compile) as encoder,
        _decoders(config, encoder, world) as (decoders, decode_threads),
    ):
        images = images_of_batch(settings.batch_size, config.image.num_views or 1)
        at_once = encoder.images_at_once(image_size, images)
        device = describe_device(world.device)
        with _looking_at_gpu(on_gpu_failure, None):
            if not encoder.on_cpu:
                refuse_large_batch(encoder, images, image_size, device)
            elif settings.compile:
                encoder.warm_up(image_size, images)
            search = use_fast_search(tokenizer, at_once, image_size, device)
        yield Machine(
            world.device,
            encoder,
            decoders,
            describe_execution(config, world.device, at_once, search) | encoder.execution,
            {"read": 1, "decode": decode_threads, "encode": encoder.threads, "write": 1, "cores": world.cores},
            watch,
            # As many as occupy all threads of the encoder; a batch of small images is a piece or two for one of them.
            max(_BATCHES_AHEAD, math.ceil(encoder.threads * at_once / images)),
            bf16_would_help(settings.precision, world.device),
            on_gpu_failure,
        )


@contextlib.contextmanager
def _looking_at_gpu(on_gpu_failure: OnGpuFailure, shard: SourceShard | None) -> Iterator[None]:
    """At once: memory on it is freed when the exception leaves its thread, and then torch may abort the process."""
    try:
        yield
    except RuntimeError as error:
        if is_gpu_failure(error):
            on_gpu_failure(error, shard)
        raise


@contextlib.contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Let cuDNN choose among algorithms that give the same result every time, and choose by the shapes alone."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def _decoders(config: Config, encoder: BatchEncoder, world: World) -> Iterator[tuple[Executor, int]]:
    """Threads to decode in, and how many they are."""
    workers, cores = config.tokenize.decode_workers, world.cores
    if workers == "auto" and encoder.on_cpu:
        # One thread per core: a thread that the system takes off its core while it holds the interpreter's lock
        # stalls all others, which costs a tenth of the speed with small images.
        yield encoder.pool, encoder.threads
        return
    enough = min(cores, _NVJPEG_THREADS) if config.image.decoder == "nvjpeg" else cores
    threads = enough if workers == "auto" else workers
    with ThreadPoolExecutor(threads, "decode", functools.partial(_begin_thread, world.device)) as pool:
        yield pool, threads


def _begin_thread(device: torch.device) -> None:
    one_thread()
    use_device(device)
