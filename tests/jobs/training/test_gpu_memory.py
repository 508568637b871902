"""A batch that a GPU has no memory for. The GPU of these tests is the CPU."""

from pathlib import Path

import pytest
import torch
from fixtures_training import TrainingJob
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.errors import ConfigError
from pipeline.jobs.training import job as train
from pipeline.jobs.training import loop
from pipeline.jobs.training.gpu_memory import explaining_little_memory
from pipeline.models import SimpleVQVAE

pytest_plugins = ["fixtures_store", "fixtures_training"]

GPU = torch.device("cuda", 0)
SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB"


@pytest.fixture
def for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for two images."""
    encode = SimpleVQVAE.encode

    def encode_little(model: SimpleVQVAE, img_B3HW: Tensor) -> Tensor:
        if len(img_B3HW) > 2:
            raise torch.OutOfMemoryError(SAID + "\nException raised from malloc")
        return encode(model, img_B3HW)

    monkeypatch.setattr(SimpleVQVAE, "encode", encode_little)


@pytest.mark.usefixtures("for_two")
def test_a_training_says_what_to_set_and_goes_on_with_that(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "explaining_little_memory", lambda train, device: explaining_little_memory(train, GPU))
    job = TrainingJob(tmp_path / "job", images).write(steps=3)
    with pytest.raises(ConfigError) as caught:
        train.run(job.config())
    assert str(caught.value) == (
        f"train.batch_size: 4 images at once do not fit into the memory of the GPU: {SAID}; set train.batch_size=2 and "
        "train.gradient_accumulation=2, whose steps are as large, or set train.precision=bf16, or end other processes "
        "on it"
    )
    assert job.checkpoints == []
    smaller = job.write(batch_size=2, gradient_accumulation=2)
    assert train.run(smaller.config()).trained


@pytest.mark.usefixtures("for_two")
def test_on_a_cpu_it_is_the_machine_that_has_too_little(images: Path, tmp_path: Path) -> None:
    job = TrainingJob(tmp_path / "job", images).write(steps=3)
    with pytest.raises(MemoryError, match=r"^CUDA out of memory\."):
        train.run(job.config())


def test_what_cannot_be_smaller_is_not_proposed() -> None:
    settings = TrainConfig(batch_size=1, precision="bf16")
    with pytest.raises(ConfigError) as caught, explaining_little_memory(settings, GPU):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert str(caught.value) == (
        "train.batch_size: 1 image at once does not fit into the memory of the GPU: CUDA error: "
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`; end other processes on it"
    )
