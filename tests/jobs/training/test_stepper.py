"""One step of the optimizer, in one batch or in several."""

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from fixtures_pictures import configuration, metrics_of, picture, write_tar
from fixtures_store import Child
from fixtures_training import TrainingJob, edit_birth
from safetensors.torch import load_file
from support import free_port
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from pipeline.config import TrainConfig
from pipeline.jobs.training import job as train
from pipeline.jobs.training.stepper import Stepper
from pipeline.models import SimpleVQVAE
from pipeline.models.tokenizers.pixels import Normalizer
from pipeline.records import Normalization

pytest_plugins = ["fixtures_pictures", "fixtures_store", "fixtures_training"]


def test_a_step_in_one_batch_or_in_four_trains_the_same_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")  # Accelerate would take it for the truth
    for pieces in (1, 4):
        options = {"batch_size": 8 // pieces, "gradient_accumulation": pieces}
        train.run(configuration(pictures, tmp_path / str(pieces), steps=8, **options))
    whole, pieced = (load_file(tmp_path / str(pieces) / "model.safetensors") for pieces in (1, 4))
    for name, value in whole.items():
        torch.testing.assert_close(pieced[name], value, rtol=1e-4, atol=1e-5, msg=name)
    for line, other in zip(metrics_of(tmp_path / "1"), metrics_of(tmp_path / "4"), strict=True):
        for key in ("loss", "reconstruction_loss", "learning_rate"):
            assert line.get(key, 0) == pytest.approx(other.get(key, 0), rel=1e-4)


def test_no_step_after_the_first_sends_mean_and_deviation_to_the_device(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait for a GPU."""
    place, placed = Normalizer._place, list[int]()
    monkeypatch.setattr(Normalizer, "_place", lambda *arguments: placed.append(1) or place(*arguments))
    train.run(configuration(pictures, tmp_path, steps=3, holdout=[]))
    assert len(placed) == 1


def test_bad_images_are_skipped_and_counted(pictures: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", [picture(1), b"no image", picture(2), picture(3)[:60]])
    write_tar(tmp_path / "heldout.tar", [b"", picture(4), picture(5)])
    config = configuration(tmp_path, tmp_path / "tokenizer", steps=2, shuffle_buffer=1)
    train.run(config)
    lines = metrics_of(tmp_path / "tokenizer")
    # Eight samples of two steps: every second one is bad.
    assert lines[0]["skipped"] == 4
    assert (lines[1]["images"], lines[1]["skipped"]) == (2, 1)


def settle(folder: Path) -> None:
    """In a process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    model = SimpleVQVAE(8, 4, 8, ema_decay=0.9, kmeans_init=True, revive_after=1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    drawn, optimizer = torch.get_rng_state(), torch.optim.AdamW(model.parameters())
    wrapped = DistributedDataParallel(model)
    Stepper(Accelerator(cpu=True), wrapped, optimizer, None, Normalization(), TrainConfig()).settle((8, 16))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training and not optimizer.state
    assert all(weight.grad is None for weight in model.parameters())


def test_settling_changes_nothing_that_a_checkpoint_holds(tmp_path: Path) -> None:
    done = Child(settle, tmp_path, folder=tmp_path).wait()
    assert done.status == 0, done.err


@pytest.mark.slow
def test_three_ranks_resume_to_the_same_bits(images: Path, tmp_path: Path) -> None:
    """With two, a sum is the same in either order. The scales are fewer than their convolutions."""
    model = {"network": "vqgan", "downsampling": 4, "vocab_size": 32, "embedding_dim": 4, "hidden_dim": 32}
    scales = {"quantizer": "multiscale", "patch_nums": [1, 2, 4], "residual_blocks": 1}
    job = TrainingJob(tmp_path / "job", images).write(
        model=model | scales, holdout=[], steps=4, checkpoint_every=2, batch_size=1, learning_rate=1e-3
    )
    weights = []
    for _ in range(2):
        group = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        ranks = [job.start(environment={**group, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(3)]
        done = [rank.wait(280) for rank in ranks]
        assert [one.status for one in done] == [0, 0, 0], [one.err for one in done]
        weights.append(job.weights)
        shutil.rmtree(job.tokenizer / "checkpoints/step-000004")  # as a kill after the second step leaves it
        for name in ("config.json", "model.safetensors"):
            (job.tokenizer / name).unlink()
        edit_birth(job, lambda birth: birth.update(result=None))
    assert weights[0] == weights[1]
