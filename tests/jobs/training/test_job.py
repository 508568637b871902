"""`vqtok train`: exact resume, honest figures, and a clear word for every way in which it cannot go on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_pictures import SIDE, configuration, metrics_of, write_tar
from PIL import Image
from safetensors.torch import load_file
from support import encoded

from pipeline.config import Config, ImageConfig, TrainConfig
from pipeline.errors import ConfigError, SourceError, TokenizerError, TrainingDiverged
from pipeline.jobs.training import job as train
from pipeline.jobs.training.lock import only_training
from pipeline.jobs.training.schedule import require_peak
from pipeline.models.tokenizers.registry import load_tokenizer

pytest_plugins = ["fixtures_pictures"]


RUN = (
    "import sys; from pipeline.config import Config; from pipeline.jobs.training import job as train;"
    "print(train.run(Config.model_validate_json(sys.argv[1])))"
)


@contextmanager
def training(config: Config, ranks: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Train in processes of their own, which find each other as torchrun's would; none outlives the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    places = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)] if ranks > 1 else [{}]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, config.model_dump_json()],
            env={**os.environ, "OMP_NUM_THREADS": "1", **place},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def kill_after_checkpoint(processes: list[subprocess.Popen[str]], folder: Path, step: int) -> None:
    """SIGKILL as soon as the checkpoint of `step` is there, and not before the folder was seen to be held."""
    while not (folder / "checkpoints" / f"step-{step:06d}").exists():
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.002)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    with (
        pytest.raises(TokenizerError, match="another process is training there; wait for it, or end it"),
        only_training(folder),
    ):
        pass
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    assert not (folder / "model.safetensors").exists()


def finish(processes: list[subprocess.Popen[str]]) -> tuple[str, str]:
    """Wait for all; output and error output of the first."""
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs[0]


# --- what a run leaves behind --------------------------------------------------------------------------------


def test_the_folder_holds_a_tokenizer_figures_and_pictures(short_training: train.TrainSummary) -> None:
    folder = short_training.folder
    tokenizer = load_tokenizer(folder, layout="raster")
    assert tokenizer.geometry((SIDE, SIDE)).num_tokens == 16
    kinds = [(line["step"], line["kind"]) for line in metrics_of(folder)]
    train_steps = [4, 6, 8, 12, 16, 18, 20, 24]  # a line also ends each interval
    assert [step for step, kind in kinds if kind == "train"] == train_steps
    assert [step for step, kind in kinds if kind == "held-out"] == [12, 24]
    pictures = sorted(path.name for path in (folder / "reconstructions").iterdir())
    assert pictures == ["step-000012.png", "step-000024.png"]
    newest = (folder / "reconstructions.png").read_bytes()
    assert newest == (folder / "reconstructions" / "step-000024.png").read_bytes()
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["step-000018", "step-000024"]
    assert any((folder / "tensorboard").iterdir())


def test_training_learns(short_training: train.TrainSummary) -> None:
    lines = metrics_of(short_training.folder)
    losses = [line["reconstruction_loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0]
    first, last = (line["psnr"] for line in lines if line["kind"] == "held-out")
    assert last > first


def test_a_finished_tokenizer_is_found_without_torch(pictures: Path, short_training: train.TrainSummary) -> None:
    config = configuration(pictures, short_training.folder)
    before = {path: path.stat().st_mtime_ns for path in short_training.folder.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", RUN + "; print('torch' in sys.modules)", config.model_dump_json()],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "already trained, nothing to do; 24 steps; held-out PSNR" in done.stdout
    assert done.stdout.endswith("False\n")
    assert not train.run(config).trained
    assert {path: path.stat().st_mtime_ns for path in short_training.folder.rglob("*")} == before


def test_another_configuration_is_refused_by_name(pictures: Path, short_training: train.TrainSummary) -> None:
    config = configuration(pictures, short_training.folder, seed=1, batch_size=5)
    with pytest.raises(TokenizerError) as caught:
        train.run(config)
    message = str(caught.value)
    assert "set another tokenizer.path, or delete the folder" in message
    assert "train.seed: 1 here, 0 there" in message
    assert "train.batch_size: 5 here, 4 there" in message


def test_how_often_figures_are_taken_may_change(pictures: Path, short_training: train.TrainSummary) -> None:
    assert not train.run(configuration(pictures, short_training.folder, log_every=1, evaluate_every=1)).trained


def test_a_tokenizer_of_unknown_origin_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(TokenizerError, match="holds a tokenizer that `vqtok train` did not make"):
        train.run(configuration(pictures, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_image_size_that_no_tokenizer_can_take_is_refused_before_work_begins(pictures: Path, tmp_path: Path) -> None:
    config = configuration(pictures, tmp_path / "tokenizer")
    for command in (train.run, train.ensure):
        with pytest.raises(
            ConfigError,
            match=r"image\.size: the tokenizer to train cannot take it: .* of 4; such as 28 x 12 or 32 x 16",
        ):
            command(config.model_copy(update={"image": ImageConfig(size=(30, 15))}))
    assert not (tmp_path / "tokenizer").exists()


def test_a_folder_that_cannot_be_written(pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(TokenizerError, match=r"is a file; set another tokenizer\.path"):
        train.run(configuration(pictures, file))
    with pytest.raises(TokenizerError, match="cannot be written as the tokenizer folder"):
        train.run(configuration(pictures, file / "below"))


# --- resume --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(
    pictures: Path, short_training: train.TrainSummary, tmp_path: Path
) -> None:
    config = configuration(pictures, tmp_path)
    with training(config) as processes:
        kill_after_checkpoint(processes, tmp_path, step=6)
    (tmp_path / "checkpoints" / ".tmp-step-000024").mkdir(exist_ok=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 24, "kind": "train", "loss": 0}\n{"step": 24, "ki')

    with training(config) as processes:
        out, err = finish(processes)
    assert re.search(r"resumed from the checkpoint of step \d+", err)
    assert f"{tmp_path}: trained; 24 steps" in out

    expected = load_file(short_training.folder / "model.safetensors")
    resumed = load_file(tmp_path / "model.safetensors")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert metrics_of(tmp_path) == metrics_of(short_training.folder)
    for name in ("reconstructions.png", "reconstructions/step-000012.png"):
        assert (tmp_path / name).read_bytes() == (short_training.folder / name).read_bytes()


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(pictures: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 2, "gradient_accumulation": 2, "workers": 1}
    weights = []
    for name, killed in (("straight", False), ("killed", True)):
        config = configuration(pictures, tmp_path / name, **options)
        if killed:
            with training(config, ranks=2) as processes:
                kill_after_checkpoint(processes, tmp_path / name, step=6)
        with training(config, ranks=2) as processes:
            _, err = finish(processes)
        assert ("resumed from" in err) == killed
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert metrics_of(tmp_path / "straight") == metrics_of(tmp_path / "killed")


# --- nothing goes wrong quietly ---------------------------------------------------------------------------------


def nothing_finished(folder: Path) -> bool:
    """Whether no tokenizer is there that could be taken for a finished one."""
    result = json.loads((folder / "train.json").read_text())["result"]
    return result is None and not any((folder / name).exists() for name in ("config.json", "model.safetensors"))


def test_an_exploding_training_ends_and_ends_again(pictures: Path, tmp_path: Path) -> None:
    config = configuration(pictures, tmp_path, steps=60, learning_rate=30, warmup_steps=0)
    for _ in range(2):
        with pytest.raises(TrainingDiverged, match=r"at step \d+ the reconstruction loss was .*e\+") as caught:
            train.run(config)
        assert caught.value.exit_status == 1
        assert "lower train.learning_rate (30) or raise train.warmup_steps (0)" in str(caught.value)
        assert str(caught.value).endswith("there is no checkpoint before it")
        assert nothing_finished(tmp_path)
        assert not any(tmp_path.glob("checkpoints/step-*"))
        assert metrics_of(tmp_path)[-1]["step"] < 60


@pytest.mark.slow
def test_all_processes_end_together_when_a_training_explodes(pictures: Path, tmp_path: Path) -> None:
    config = configuration(pictures, tmp_path, steps=60, learning_rate=30, warmup_steps=0)
    with training(config, ranks=2) as processes:
        outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert ["training went wrong" in err for _, err in outputs] == [True, False]
    assert nothing_finished(tmp_path)


@pytest.mark.parametrize(("holdout", "images"), [(True, "held-out"), (False, "training")])
def test_an_outcome_worse_than_the_mean_image_is_refused(tmp_path: Path, holdout: bool, images: str) -> None:
    dark = np.random.default_rng(0).integers(0, 40, (12, SIDE, SIDE, 3), dtype=np.uint8)
    for name in ("train-0", "heldout"):
        write_tar(tmp_path / f"{name}.tar", [encoded(Image.fromarray(pixels), "PNG") for pixels in dark])
    options: dict[str, Any] = {} if holdout else {"holdout": []}
    config = configuration(tmp_path, tmp_path / "tokenizer", steps=8, learning_rate=1e-9, **options)
    for _ in range(2):  # it goes on from the checkpoint before, to the same end
        message = (
            rf"after 8 steps the reconstructions of {images} images, with a PSNR of 7\.\d+ dB, are worse than their"
        )
        with pytest.raises(TrainingDiverged, match=message) as caught:
            train.run(config)
        assert "train for more steps" in str(caught.value)
        assert str(caught.value).endswith("step-000006")
        assert nothing_finished(tmp_path / "tokenizer")
        assert [path.name for path in (tmp_path / "tokenizer/checkpoints").glob("step-*")] == ["step-000006"]


def test_a_single_held_out_image_does_not_spare_an_outcome_its_judgement(pictures: Path, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(0, 40, (12, SIDE, SIDE, 3), dtype=np.uint8)
    for name, images in (("train-0", dark), ("heldout", dark[:1])):
        write_tar(tmp_path / f"{name}.tar", [encoded(Image.fromarray(pixels), "PNG") for pixels in images])
    config = configuration(tmp_path, tmp_path / "tokenizer", steps=2, warmup_steps=0, learning_rate=1e-9)
    with pytest.raises(TrainingDiverged, match=r"after 2 steps the reconstructions of training images, .* are worse"):
        train.run(config)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator can train in fp16")
def test_fp16_on_a_cpu_is_refused_before_work_begins(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.precision: fp16 is for GPUs, and this device is cpu; set fp32"):
        train.run(configuration(pictures, tmp_path / "tokenizer", precision="fp16"))
    assert not (tmp_path / "tokenizer").exists()


def test_a_warmup_that_never_ends_is_refused_before_work_begins(pictures: Path, tmp_path: Path) -> None:
    for warmup in (24, 25):
        with pytest.raises(
            ConfigError, match=rf"train\.warmup_steps: a warm-up of {warmup} steps .* the 24 of train.steps"
        ):
            train.run(configuration(pictures, tmp_path / "tokenizer", warmup_steps=warmup))
    assert not (tmp_path / "tokenizer").exists()
    require_peak(TrainConfig(warmup_steps=23, steps=24))


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([b"no image", b""], "none of 2 samples has a usable image to train on; the first: train-0-0: not an image"),
        ([], "none of 0 samples has a usable image to train on; they hold no samples"),
    ],
)
def test_a_source_without_a_usable_image_ends(tmp_path: Path, images: list[bytes], message: str) -> None:
    write_tar(tmp_path / "train-0.tar", images)
    with pytest.raises(SourceError, match=message):
        train.run(configuration(tmp_path, tmp_path / "tokenizer", holdout=[]))


def test_a_truncated_source_shard_is_an_error_without_a_traceback(pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole[: len(whole) // 2])
    config = configuration(tmp_path, tmp_path / "tokenizer", holdout=[], workers=1)
    with pytest.raises(SourceError) as caught:
        train.run(config)
    assert "train-0.tar" in str(caught.value)
    assert "Traceback" not in str(caught.value)
