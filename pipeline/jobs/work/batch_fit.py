"""Whether a batch fits into the memory of a GPU: found out before anything is claimed, and said once."""

import contextlib
import gc

import torch

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.batch_encoder import BatchEncoder, Encoding
from pipeline.process.shortage import memory_errors


def refuse_large_batch(encoder: BatchEncoder, images: int, image_size: tuple[int, int], gpu: str) -> None:
    """Encode black images as the job will: so many at once in every thread.

    Raises ConfigError where the GPU has too little memory for them, with a number for which it has enough.
    """
    reason = _shortage(encoder, images, image_size)
    if not reason:
        return
    fewer = images // 2
    while fewer and _shortage(encoder, fewer, image_size):
        fewer //= 2
    raise too_large(images, fewer, gpu, reason)


def too_large(images: int, fewer: int, gpu: str, reason: str) -> ConfigError:
    """The error of a job whose batches do not fit.

    Args:
        fewer: images of a batch to try; 0 where not even one fits.
    """
    one = "image at once does" if images == 1 else "images at once do"
    remedy = f"set tokenize.batch_size={fewer}" if fewer else "set tokenize.precision=bf16, use a GPU with more memory"
    return ConfigError(
        f"tokenize.batch_size: {images} {one} not fit into the memory of {gpu}: {reason}; {remedy}, or end other "
        "processes on it, or start fewer (--processes)"
    )


def _shortage(encoder: BatchEncoder, images: int, image_size: tuple[int, int]) -> str:
    """What the GPU says of too little memory; empty where it has enough."""
    reason = _said(encoder, images, image_size)
    if reason:
        gc.collect()  # an error holds what its thread had on the GPU, and the frames of its traceback hold the error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return reason


def _said(encoder: BatchEncoder, images: int, image_size: tuple[int, int]) -> str:
    img_BHW3 = torch.zeros((images, *image_size, 3), dtype=torch.uint8)
    encodings = [encoder.submit(img_BHW3.permute(0, 3, 1, 2), images) for _ in range(encoder.threads)]
    # All of them: one that is still at work would take memory from the next attempt.
    return next(filter(None, [_said_by(encoding) for encoding in encodings]), "")


def _said_by(encoding: Encoding) -> str:
    try:
        # That they may have no finite vectors is not the question.
        with memory_errors(), contextlib.suppress(TokenizerError):
            encoding.result()
    except MemoryError as error:
        return str(error)
    return ""
