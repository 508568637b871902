"""GPUs that have too little memory for a batch."""

import contextlib
from collections.abc import Iterator

import torch

from pipeline.config import TrainConfig
from pipeline.errors import ConfigError
from pipeline.process.shortage import reason_of


@contextlib.contextmanager
def explaining_little_memory(train: TrainConfig) -> Iterator[None]:
    """Raise ConfigError, which says what to set, in place of what torch says of a GPU without room."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        batch, pieces = train.batch_size, train.gradient_accumulation
        remedies = ["end other processes on it"]
        if train.precision == "fp32":
            remedies.insert(0, "set train.precision=bf16")
        if batch > 1:
            smaller = f"train.batch_size={batch // 2} and train.gradient_accumulation={pieces * 2}"
            remedies.insert(0, f"set {smaller}, whose steps are as large")
        images = "image at once does" if batch == 1 else "images at once do"
        raise ConfigError(
            f"train.batch_size: {batch} {images} not fit into the memory of the GPU: {reason_of(error)}; "
            + ", or ".join(remedies)
        ) from error
