"""Batches that a GPU has no memory for: one error, with a number to try. The GPU of these tests is the CPU."""

import gc
import itertools
import re
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from fixtures_store import COLLECTION, Job
from shard_work import Accelerator
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.work import machine as machine_module
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.world import available_cores

pytest_plugins = ["fixtures_store"]

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], None]:
    """Has jobs encode on what they take for a GPU, which calls a function with the size of each batch."""
    monkeypatch.setattr(machine_module, "BatchEncoder", Accelerator)
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
        r"end other processes on it, or start fewer \(--processes\)",
        str(caught.value),
    )
    assert (job.commits, job.listing("claims"), job.listing("failures")) == ({}, [], [])


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nobody knows when it would come by itself."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_an_attempt_held_is_free_again_for_the_next_one(
    job: Job, gpu: Callable[[Callable[[int], object]], None]
) -> None:
    class Activations:
        """In the frame of an encoder when its memory ends."""

    left: weakref.WeakSet[Activations] = weakref.WeakSet()

    def encode(images: int) -> None:
        before, activations = len(left), Activations()
        if images > 16:
            left.add(activations)
            raise torch.OutOfMemoryError(SAID)
        if before:
            raise torch.OutOfMemoryError(f"{SAID}, {before} batches are in it")

    gpu(encode)
    with pytest.raises(ConfigError, match=re.escape(f"{SAID}; set tokenize.batch_size=16, or")):
        job.run("tokenize.batch_size=32")


def test_one_batch_without_tokens_hides_no_other_that_does_not_fit(
    job: Job, gpu: Callable[[Callable[[int], object]], None]
) -> None:
    numbers = itertools.count()

    def encode(images: int) -> None:
        if not next(numbers):
            raise TokenizerError("the encoder gave values that are not finite")
        raise torch.OutOfMemoryError(SAID)

    gpu(encode)
    with pytest.raises(ConfigError, match=r"^tokenize\.batch_size: 2 images"):
        job.run("tokenize.batch_size=2")
    assert job.listing("failures") == []


def test_memory_that_is_short_later_ends_the_job_with_one_error(
    job: Job, gpu: Callable[[Callable[[int], object]], None]
) -> None:
    numbers = itertools.count()

    def encode(images: int) -> None:
        if next(numbers) >= available_cores() + 8:  # each thread encodes a batch to see whether it fits
            raise torch.OutOfMemoryError(SAID)

    gpu(encode)
    with pytest.raises(ConfigError, match=rf"^tokenize\.batch_size: 2 images .*{re.escape(SAID)}; set .*=1, or"):
        job.run("tokenize.batch_size=2")
    assert (job.listing("claims"), len(job.listing("failures"))) == ([], 1)
    for path, record in job.commits.items():
        assert record["written"] + record["rejected"] == len(COLLECTION[path])
    assert len(job.commits) < len(COLLECTION)
