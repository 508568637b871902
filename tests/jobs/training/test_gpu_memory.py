"""A batch that a GPU has no memory for. The GPU of these tests is the CPU."""

from pathlib import Path

import pytest
import torch
from fixtures_training import TrainingJob
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.errors import ConfigError
from pipeline.jobs.training import job as train
from pipeline.jobs.training.gpu_memory import explaining_little_memory
from pipeline.models import SimpleVQVAE

pytest_plugins = ["fixtures_store", "fixtures_training"]

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB"


def test_a_training_says_what_to_set_and_goes_on_with_that(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = SimpleVQVAE.encode

    def encode_little(model: SimpleVQVAE, img_B3HW: Tensor) -> Tensor:
        if len(img_B3HW) > 2:
            raise torch.OutOfMemoryError(SAID + "\nException raised from malloc")
        return encode(model, img_B3HW)

    monkeypatch.setattr(SimpleVQVAE, "encode", encode_little)
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


def test_what_cannot_be_smaller_is_not_proposed() -> None:
    train = TrainConfig(batch_size=1, precision="bf16")
    with pytest.raises(ConfigError) as caught, explaining_little_memory(train):
        raise torch.OutOfMemoryError(SAID)
    assert str(caught.value) == (
        f"train.batch_size: 1 image at once does not fit into the memory of the GPU: {SAID}; end other processes on it"
    )
