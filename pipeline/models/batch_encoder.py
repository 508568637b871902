"""From batches of uint8 images to tokens, in threads that keep the device busy.

Shape letters: B images of H x W pixels, R rows of them that count, L tokens of one image.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import NO_TOKEN, Tokenizer, not_finite
from pipeline.threads import one_thread

# Measured with 2 cores at 256 px: one image at a time is 1.5 times as fast as 16, whose activations leave the cache.
_CPU_PIXELS_AT_ONCE = 65_536

# One computes while the other copies and launches.
_ACCELERATOR_THREADS = 2

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Piece:
    tokens: Tokens
    seconds: float


class Encoding:
    """The tokens of a batch, which may still be in the making."""

    def __init__(self, pieces: Sequence["Future[_Piece]"], rows: int) -> None:
        self._pieces = pieces
        self._rows = rows

    def result(self) -> tuple[Tokens, float]:
        """Tokens int64 [R, L], blocks concatenated in order; and the seconds that threads spent on them,
        CPU time where the device is the CPU.

        Waits. Raises what encoding raised.
        """
        pieces = [piece.result() for piece in self._pieces]
        return np.concatenate([piece.tokens for piece in pieces])[: self._rows], sum(p.seconds for p in pieces)


class BatchEncoder:
    """Encodes batches with one tokenizer on the device where it is.

    On a CPU a batch is cut into pieces small enough for the caches, and each is encoded by one thread with
    operations that use one thread: no core waits for another, and the tokens do not depend on how many there are.
    On an accelerator a batch is one piece, and the threads take turns, each with a stream of its own.

    A context manager; leaving it cancels what has not begun.

    Args:
        cores: CPU cores that encoding may use.
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device, cores: int) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self.on_cpu = device.type == "cpu"
        self.threads = cores if self.on_cpu else _ACCELERATOR_THREADS
        """Batches or pieces of them that are encoded at once."""
        self.pool = ThreadPoolExecutor(self.threads, "cores" if self.on_cpu else "encode", one_thread)
        """Where encoding is done. On a CPU, whatever else needs the same cores is best done there too."""
        self._streams = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(cancel_futures=True)

    def images_at_once(self, image_size: tuple[int, int], batch_size: int) -> int:
        """Images of a piece, which may decide the last bit of a sum, and so a token now and then."""
        if not self.on_cpu:
            return batch_size
        height, width = image_size
        return min(batch_size, max(1, _CPU_PIXELS_AT_ONCE // (height * width)))

    def submit(self, img_B3HW: Tensor, rows: int, at_most: int | None = None) -> Encoding:
        """Begin to encode uint8 images, of which the first `rows` count; at least one.

        The pixels must not be changed before the result is there.

        Args:
            at_most: encode no more than so many at once; by default all may be.
        """
        batch_size, _, height, width = img_B3HW.shape
        size = self.images_at_once((height, width), min(batch_size, at_most or batch_size))
        ready = _recorded(img_B3HW)
        # Always whole pieces: their shape must not depend on how many rows count.
        pieces = [
            self.pool.submit(self._encode, img_B3HW[start : start + size], ready) for start in range(0, rows, size)
        ]
        return Encoding(pieces, rows)

    def _encode(self, img_B3HW: Tensor, ready: "torch.cuda.Event | None") -> _Piece:
        # Where threads share cores, the time in which this one was not on any is no work.
        clock = time.thread_time if self.on_cpu else time.perf_counter
        started = clock()
        with torch.inference_mode():
            if self._device.type == "cuda":
                tokens = self._encode_on_stream(img_B3HW, ready)
            else:
                tokens = self._tokens(img_B3HW.to(self._device))
        return _Piece(tokens, clock() - started)

    def _encode_on_stream(self, img_B3HW: Tensor, ready: "torch.cuda.Event | None") -> Tokens:
        stream: torch.cuda.Stream | None = getattr(self._streams, "own", None)
        if stream is None:
            stream = self._streams.own = torch.cuda.Stream(self._device)
        with torch.cuda.stream(stream):
            if ready is not None:
                stream.wait_event(ready)
                img_B3HW.record_stream(stream)
            elif img_B3HW.is_cpu:
                img_B3HW = img_B3HW.pin_memory()
            return self._tokens(img_B3HW.to(self._device, non_blocking=True))

    def _tokens(self, img_B3HW: Tensor) -> Tokens:
        blocks = self._tokenizer.encode(normalize_pixels(img_B3HW, self._tokenizer.normalization))
        tokens: Tokens = torch.cat(blocks, dim=1).cpu().numpy()
        if tokens.size and tokens.min() <= NO_TOKEN:
            raise not_finite("this precision")
        return tokens


def _recorded(img_B3HW: Tensor) -> "torch.cuda.Event | None":
    """The moment at which images that were decoded on a GPU are there, as a mark in the stream that made them."""
    if not img_B3HW.is_cuda:
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(img_B3HW.device))
    return event
