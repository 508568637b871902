"""Batches that a GPU has no memory for: one error, with a number to try. The GPU of these tests is the CPU."""

import itertools
import re
from collections.abc import Callable

import pytest
import torch
from fixtures_store import COLLECTION, Job
from torch import Tensor

from pipeline.errors import ConfigError, VqtokError
from pipeline.jobs.work import machine as machine_module
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.world import available_cores

pytest_plugins = ["fixtures_store"]

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB"


class _Accelerator(BatchEncoder):
    """Takes the CPU for a device of its own."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.on_cpu = False


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], None]:
    """Has jobs encode on what they take for a GPU, which calls a function with the size of each batch."""
    monkeypatch.setattr(machine_module, "BatchEncoder", _Accelerator)
    encode = NetworkTokenizer.encode

    def told(before: Callable[[int], object]) -> None:
        def encode_then(tokenizer: NetworkTokenizer, img_B3HW: Tensor) -> list[Tensor]:
            before(len(img_B3HW))
            return encode(tokenizer, img_B3HW)

        monkeypatch.setattr(NetworkTokenizer, "encode", encode_then)

    return told


def run_out_of_memory(fits: int) -> Callable[[int], None]:
    def encode(images: int) -> None:
        if images > fits:
            raise torch.OutOfMemoryError(SAID + "\nException raised from malloc")

    return encode


@pytest.mark.parametrize(
    ("fits", "remedy"),
    [
        (5, "set tokenize.batch_size=4"),
        (16, "set tokenize.batch_size=16"),
        (0, "set tokenize.precision=bf16, use a GPU with more memory"),
    ],
)
def test_a_batch_that_does_not_fit_is_told_before_anything_is_begun(
    fits: int, remedy: str, job: Job, gpu: Callable[[Callable[[int], object]], None]
) -> None:
    gpu(run_out_of_memory(fits))
    with pytest.raises(ConfigError) as caught:
        job.run("tokenize.batch_size=32")
    assert re.fullmatch(
        rf"tokenize\.batch_size: 32 images at once do not fit into the memory of .*: {re.escape(SAID)}; {remedy}, or "
        "end other processes on it",
        str(caught.value),
    )
    assert (job.commits, job.listing("claims"), job.listing("failures")) == ({}, [], [])


def fail_from(begin: int, error: Callable[[], Exception]) -> Callable[[int], None]:
    """All is well for so many batches, and nothing is from then on."""
    numbers = itertools.count()

    def encode(images: int) -> None:
        if next(numbers) >= begin:
            raise error()

    return encode


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lambda: torch.OutOfMemoryError(SAID), rf"^tokenize\.batch_size: 2 images .*{re.escape(SAID)}; set .*=1, or"),
        (
            lambda: torch.AcceleratorError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
            r"^CUDA error: device-side assert triggered: the GPU is of no more use to this process, .*Run again; ",
        ),
        (
            lambda: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
            r"^cuDNN error: CUDNN_STATUS_EXECUTION_FAILED: the GPU is of no more use",
        ),
    ],
    ids=["memory", "assert", "cuDNN"],
)
def test_a_gpu_that_fails_ends_the_job_with_one_error_and_gives_back_what_is_claimed(
    error: Callable[[], Exception], says: str, job: Job, gpu: Callable[[Callable[[int], object]], None]
) -> None:
    gpu(fail_from(available_cores() + 8, error))  # each thread encodes a batch to see whether it fits
    with pytest.raises(VqtokError, match=says) as caught:
        job.run("tokenize.batch_size=2")
    assert "\n" not in str(caught.value)
    assert job.listing("claims") == []
    assert len(job.listing("failures")) == 1
    for path, record in job.commits.items():
        assert record["written"] + record["rejected"] == len(COLLECTION[path])
    assert len(job.commits) < len(COLLECTION)
    assert not (job.store / "manifest.json").exists()
