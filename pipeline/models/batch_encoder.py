"""From batches of uint8 images to tokens, in threads that keep the device busy.

Shape letters: B images of H x W pixels, R rows of them that count, L tokens of one image.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.lane import Lane, Tokens, recorded
from pipeline.models.tokenizers.pixels import Normalizer
from pipeline.models.tokenizers.protocol import NO_TOKEN, PixelTokenizer, Tokenizer, not_finite
from pipeline.process.threads import one_thread, use_device
from pipeline.records import JSON

# Measured with 2 cores at 256 px: one image at a time is 1.5 times as fast as 16, whose activations leave the cache.
_CPU_PIXELS_AT_ONCE = 65_536

# One computes while the other copies and launches. On an Apple GPU operations of two threads abort the process:
# https://github.com/pytorch/pytorch/issues/197805
_ACCELERATOR_THREADS = 2
_APPLE_THREADS = 1


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
    On an accelerator a batch is one piece, and two threads take turns, on CUDA each with a stream of its own.

    A context manager; leaving it cancels what has not begun.

    Args:
        cores: CPU cores that encoding may use.
        compiles: let torch compile the encoder, when the first batch of a shape comes.

    Raises ConfigError for a tokenizer that cannot be compiled.
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device, cores: int, compiles: bool = False) -> None:
        if compiles:
            _compile(tokenizer)
        self._encode_pixels = _encode_pixels(tokenizer)
        self.execution: JSON = tokenizer.execution() if isinstance(tokenizer, PixelTokenizer) else {}
        """What of this may change a few tokens, beside precision, device and batch shape."""
        self._device = device
        self.on_cpu = device.type == "cpu"
        self.threads = {"cpu": cores, "mps": _APPLE_THREADS}.get(device.type, _ACCELERATOR_THREADS)
        """Batches or pieces of them that are encoded at once."""
        self.pool = ThreadPoolExecutor(self.threads, "cores" if self.on_cpu else "encode", self._begin_thread)
        """Where encoding is done. On a CPU, whatever else needs the same cores is best done there too."""
        self._of_thread = threading.local()

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

    def warm_up(self, image_size: tuple[int, int], batch_size: int) -> None:
        """Encode a black batch, so that what has to be compiled is. Raises ConfigError where it cannot be."""
        img_BHW3 = torch.zeros(batch_size, *image_size, 3, dtype=torch.uint8)
        with contextlib.suppress(TokenizerError):  # that they may have no finite vectors is not the question
            self.submit(img_BHW3.permute(0, 3, 1, 2), 1).result()

    def submit(self, img_B3HW: Tensor, rows: int, at_most: int | None = None) -> Encoding:
        """Begin to encode uint8 images, of which the first `rows` count; at least one.

        The pixels must not be changed before the result is there.

        Args:
            at_most: encode no more than so many at once; by default all may be.
        """
        batch_size, _, height, width = img_B3HW.shape
        size = self.images_at_once((height, width), min(batch_size, at_most or batch_size))
        ready = recorded(img_B3HW)
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
                found = self._lane.run(img_B3HW, ready, self._on_device)
            else:
                found = self._on_device(img_B3HW.to(self._device)).cpu().numpy()
        if found[-1]:
            raise not_finite("this precision")
        return _Piece(found[:-1].reshape(len(img_B3HW), -1), clock() - started)

    def _on_device(self, img_B3HW: Tensor) -> Tensor:
        """The tokens of images in one row, and whether any is missing as the last number: int64 [B * L + 1].

        One row, so that one copy brings all to the host.
        """
        tokens_n = torch.cat(self._encode_pixels(img_B3HW), dim=1).flatten()
        return torch.cat([tokens_n, (tokens_n <= NO_TOKEN).any().long()[None]])

    @property
    def _lane(self) -> Lane:
        """That of this thread."""
        lane: Lane | None = getattr(self._of_thread, "lane", None)
        if lane is None:
            lane = self._of_thread.lane = Lane(self._device)
        return lane

    def _begin_thread(self) -> None:
        one_thread()
        use_device(self._device)


def _encode_pixels(tokenizer: Tokenizer) -> Callable[[Tensor], list[Tensor]]:
    """From uint8 images to blocks."""
    if isinstance(tokenizer, PixelTokenizer):
        return tokenizer.encode_pixels
    normalize = Normalizer(tokenizer.normalization)
    return lambda img_B3HW: tokenizer.encode(normalize(img_B3HW))


def _compile(tokenizer: Tokenizer) -> None:
    if not isinstance(tokenizer, PixelTokenizer):
        raise ConfigError(f"tokenize.compile: {type(tokenizer).__name__} cannot be compiled: set it to false")
    tokenizer.compile()
