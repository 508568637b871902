"""Encoding in one thread, in the form that `pipeline.models` is going to offer."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch
from torch import Tensor

from pipeline.models.tokenizer import Tokenizer, normalize_pixels


class BatchEncoder:
    """Encodes batches of uint8 images in the order in which they are submitted, with `threads` threads of torch."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device, threads: int) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self._pool = ThreadPoolExecutor(1, "encode", torch.set_num_threads, (threads,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, img_B3HW: Tensor, rows: int) -> "Future[Any]":
        """Begin to encode; the first `rows` images count."""
        return self._pool.submit(self._encode, img_B3HW, rows)

    def _encode(self, img_B3HW: Tensor, rows: int) -> Any:
        with torch.inference_mode():
            pixels = normalize_pixels(img_B3HW.to(self._device), self._tokenizer.normalization)
            return torch.cat(self._tokenizer.encode(pixels), dim=1)[:rows].cpu().numpy()
