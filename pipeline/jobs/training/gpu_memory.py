"""GPUs that have too little memory for a batch."""

import contextlib
from collections.abc import Iterator

import torch

from pipeline.config import TrainConfig
from pipeline.errors import ConfigError
from pipeline.process.shortage import memory_errors


@contextlib.contextmanager
def explaining_little_memory(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """Raise ConfigError, which says what to set, in place of what torch says of a GPU without room.

    On a CPU, MemoryError: it is the machine that has too little.
    """
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        if device.type == "cpu":
            raise
        raise ConfigError(_too_large(train, str(error))) from error


def _too_large(train: TrainConfig, reason: str) -> str:
    batch, pieces = train.batch_size, train.gradient_accumulation
    images = "image at once does" if batch == 1 else "images at once do"
    remedies = []
    if batch > 1:
        smaller = f"train.batch_size={batch // 2} and train.gradient_accumulation={2 * pieces}"
        remedies.append(f"set {smaller}, whose steps are as large")
    if train.precision == "fp32":
        remedies.append("set train.precision=bf16")
    remedies.append("end other processes on it")
    return f"train.batch_size: {batch} {images} not fit into the memory of the GPU: {reason}; " + ", or ".join(remedies)
