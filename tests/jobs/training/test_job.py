"""`vqtok train`: exact resume, honest figures, and a clear word for every way in which it cannot go on."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from safetensors.torch import load_file
from support import encoded

from pipeline.config import Config, ImageConfig, TrainConfig
from pipeline.errors import ConfigError, SourceError, TokenizerError, TrainingDiverged
from pipeline.jobs.pictures import comparison_png
from pipeline.jobs.tally import Tally
from pipeline.jobs.training import job as train
from pipeline.jobs.training.lock import only_training
from pipeline.jobs.training.metrics import MetricsLog
from pipeline.jobs.training.schedule import WarmupThenCosine, require_peak
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.records import JSON

SIDE = 16
RUN = (
    "import sys; from pipeline.config import Config; from pipeline.jobs.training import job as train;"
    "print(train.run(Config.model_validate_json(sys.argv[1])))"
)


def picture(seed: int) -> bytes:
    """A PNG of SIDE x SIDE smooth colours, another one for every seed; its first pixel tells the seed."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    pixels[0, 0] = seed
    pixels[0, -1] = seed
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, images: Iterable[bytes]) -> None:
    with wds.TarWriter(str(path), encoder=False) as writer:
        for i, image in enumerate(images):
            writer.write({"__key__": f"{path.stem}-{i}", "png": image})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two source shards with 12 images each, seeds 0 to 23, and one of 6 held-out images."""
    folder = tmp_path_factory.mktemp("data")
    write_tar(folder / "train-0.tar", [picture(i) for i in range(12)])
    write_tar(folder / "train-1.tar", [picture(i) for i in range(12, 24)])
    write_tar(folder / "heldout.tar", [picture(100 + i) for i in range(6)])
    return folder


def configuration(data: Path, folder: Path, **train: Any) -> Config:
    """24 steps in intervals of six, with everything on that keeps a state between steps."""
    model = {
        "vocab_size": 32,
        "embedding_dim": 4,
        "hidden_dim": 8,
        "ema_decay": 0.9,
        "kmeans_init": True,
        # Draws from torch's generator in every step, so a resume that lost its state would come out otherwise.
        "revive_after": 1,
        "final_relu": False,
    }
    defaults = {
        "model": model,
        "holdout": [str(data / "heldout.tar")],
        "steps": 24,
        "batch_size": 4,
        "learning_rate": 0.01,
        "warmup_steps": min(2, train.get("steps", 24) - 1),
        "shuffle_buffer": 6,
        "log_every": 4,
        "evaluate_every": 12,
        "checkpoint_every": 6,
    }
    return Config.model_validate(
        {
            "source": {"shards": str(data / "train-*.tar")},
            "image": {"size": SIDE},
            "tokenizer": {"path": str(folder)},
            "tokenize": {"store": str(folder / "store")},
            "train": {**defaults, **train},
        }
    )


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> train.TrainSummary:
    return train.run(configuration(data, tmp_path_factory.mktemp("trained") / "tokenizer"))


def metrics_of(folder: Path) -> list[JSON]:
    """The lines of metrics.jsonl without the one figure that time decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


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


def test_the_folder_holds_a_tokenizer_figures_and_pictures(trained: train.TrainSummary) -> None:
    folder = trained.folder
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


def test_held_out_figures_are_those_of_the_saved_tokenizer(data: Path, trained: train.TrainSummary) -> None:
    tokenizer = load_tokenizer(trained.folder, layout="raster")
    images = [Image.open(io.BytesIO(picture(100 + i))) for i in range(6)]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    idx_Bl = tokenizer.encode(pixels / 127.5 - 1)
    rebuilt = ((tokenizer.decode(idx_Bl) + 1) * 127.5).round().clamp(0, 255)
    psnr = 10 * np.log10(255**2 / (rebuilt.double() - pixels).square().mean().item())
    shares = np.unique(idx_Bl[0].numpy(), return_counts=True)[1] / idx_Bl[0].numel()
    assert trained.result.psnr == pytest.approx(psnr, abs=1e-4)
    assert trained.result.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-4)
    assert trained.result.codes_used == len(shares)


def test_training_learns(trained: train.TrainSummary) -> None:
    lines = metrics_of(trained.folder)
    losses = [line["reconstruction_loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0]
    first, last = (line["psnr"] for line in lines if line["kind"] == "held-out")
    assert last > first


def test_a_finished_tokenizer_is_found_without_torch(data: Path, trained: train.TrainSummary) -> None:
    config = configuration(data, trained.folder)
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", RUN + "; print('torch' in sys.modules)", config.model_dump_json()],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "already trained, nothing to do; 24 steps; held-out PSNR" in done.stdout
    assert done.stdout.endswith("False\n")
    assert not train.run(config).trained
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_another_configuration_is_refused_by_name(data: Path, trained: train.TrainSummary) -> None:
    config = configuration(data, trained.folder, seed=1, batch_size=5)
    with pytest.raises(TokenizerError) as caught:
        train.run(config)
    message = str(caught.value)
    assert "set another tokenizer.path, or delete the folder" in message
    assert "train.seed: 1 here, 0 there" in message
    assert "train.batch_size: 5 here, 4 there" in message


def test_how_often_figures_are_taken_may_change(data: Path, trained: train.TrainSummary) -> None:
    assert not train.run(configuration(data, trained.folder, log_every=1, evaluate_every=1)).trained


def test_a_tokenizer_of_unknown_origin_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(TokenizerError, match="holds a tokenizer that `vqtok train` did not make"):
        train.run(configuration(data, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_image_size_that_no_tokenizer_can_take_is_refused_before_work_begins(data: Path, tmp_path: Path) -> None:
    config = configuration(data, tmp_path / "tokenizer")
    for command in (train.run, train.ensure):
        with pytest.raises(
            ConfigError,
            match=r"image\.size: the tokenizer to train cannot take it: .* of 4; such as 28 x 12 or 32 x 16",
        ):
            command(config.model_copy(update={"image": ImageConfig(size=(30, 15))}))
    assert not (tmp_path / "tokenizer").exists()


def test_a_folder_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(TokenizerError, match=r"is a file; set another tokenizer\.path"):
        train.run(configuration(data, file))
    with pytest.raises(TokenizerError, match="cannot be written as the tokenizer folder"):
        train.run(configuration(data, file / "below"))


# --- resume --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(data: Path, trained: train.TrainSummary, tmp_path: Path) -> None:
    config = configuration(data, tmp_path)
    with training(config) as processes:
        kill_after_checkpoint(processes, tmp_path, step=6)
    (tmp_path / "checkpoints" / ".tmp-step-000024").mkdir(exist_ok=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 24, "kind": "train", "loss": 0}\n{"step": 24, "ki')

    with training(config) as processes:
        out, err = finish(processes)
    assert re.search(r"resumed from the checkpoint of step \d+", err)
    assert f"{tmp_path}: trained; 24 steps" in out

    expected = load_file(trained.folder / "model.safetensors")
    resumed = load_file(tmp_path / "model.safetensors")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert metrics_of(tmp_path) == metrics_of(trained.folder)
    for name in ("reconstructions.png", "reconstructions/step-000012.png"):
        assert (tmp_path / name).read_bytes() == (trained.folder / name).read_bytes()


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 2, "gradient_accumulation": 2, "workers": 1}
    weights = []
    for name, killed in (("straight", False), ("killed", True)):
        config = configuration(data, tmp_path / name, **options)
        if killed:
            with training(config, ranks=2) as processes:
                kill_after_checkpoint(processes, tmp_path / name, step=6)
        with training(config, ranks=2) as processes:
            _, err = finish(processes)
        assert ("resumed from" in err) == killed
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert metrics_of(tmp_path / "straight") == metrics_of(tmp_path / "killed")


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    lines = [{"step": step, "kind": kind} for step in (1, 2, 3) for kind in ("train", "held-out")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 4, "kin')
    log = MetricsLog(tmp_path, resumed_from=2)
    assert metrics_of(tmp_path) == lines[:4]
    assert log.latest["held-out"] == {"step": 2, "kind": "held-out"}
    log.write("train", 3, {"loss": 1 / 3})
    assert metrics_of(tmp_path)[4:] == [{"step": 3, "kind": "train", "loss": 0.333333}]


# --- nothing goes wrong quietly ---------------------------------------------------------------------------------


def nothing_finished(folder: Path) -> bool:
    """Whether no tokenizer is there that could be taken for a finished one."""
    result = json.loads((folder / "train.json").read_text())["result"]
    return result is None and not any((folder / name).exists() for name in ("config.json", "model.safetensors"))


def test_an_exploding_training_ends_and_ends_again(data: Path, tmp_path: Path) -> None:
    config = configuration(data, tmp_path, steps=60, learning_rate=30, warmup_steps=0)
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
def test_all_processes_end_together_when_a_training_explodes(data: Path, tmp_path: Path) -> None:
    config = configuration(data, tmp_path, steps=60, learning_rate=30, warmup_steps=0)
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


def test_a_single_held_out_image_does_not_spare_an_outcome_its_judgement(data: Path, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(0, 40, (12, SIDE, SIDE, 3), dtype=np.uint8)
    for name, images in (("train-0", dark), ("heldout", dark[:1])):
        write_tar(tmp_path / f"{name}.tar", [encoded(Image.fromarray(pixels), "PNG") for pixels in images])
    config = configuration(tmp_path, tmp_path / "tokenizer", steps=2, warmup_steps=0, learning_rate=1e-9)
    with pytest.raises(TrainingDiverged, match=r"after 2 steps the reconstructions of training images, .* are worse"):
        train.run(config)


def test_a_step_in_one_batch_or_in_four_trains_the_same_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")  # Accelerate would take it for the truth
    for pieces in (1, 4):
        options = {"batch_size": 8 // pieces, "gradient_accumulation": pieces}
        train.run(configuration(data, tmp_path / str(pieces), steps=8, **options))
    whole, pieced = (load_file(tmp_path / str(pieces) / "model.safetensors") for pieces in (1, 4))
    for name, value in whole.items():
        torch.testing.assert_close(pieced[name], value, rtol=1e-4, atol=1e-5, msg=name)
    for line, other in zip(metrics_of(tmp_path / "1"), metrics_of(tmp_path / "4"), strict=True):
        for key in ("loss", "reconstruction_loss", "learning_rate"):
            assert line.get(key, 0) == pytest.approx(other.get(key, 0), rel=1e-4)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator can train in fp16")
def test_fp16_on_a_cpu_is_refused_before_work_begins(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.precision: fp16 is for GPUs, and this device is cpu; set fp32"):
        train.run(configuration(data, tmp_path / "tokenizer", precision="fp16"))
    assert not (tmp_path / "tokenizer").exists()


def test_a_warmup_that_never_ends_is_refused_before_work_begins(data: Path, tmp_path: Path) -> None:
    for warmup in (24, 25):
        with pytest.raises(
            ConfigError, match=rf"train\.warmup_steps: a warm-up of {warmup} steps .* the 24 of train.steps"
        ):
            train.run(configuration(data, tmp_path / "tokenizer", warmup_steps=warmup))
    assert not (tmp_path / "tokenizer").exists()
    require_peak(TrainConfig(warmup_steps=23, steps=24))


# --- bad input -----------------------------------------------------------------------------------------------


def test_bad_images_are_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", [picture(1), b"no image", picture(2), picture(3)[:60]])
    write_tar(tmp_path / "heldout.tar", [b"", picture(4), picture(5)])
    config = configuration(tmp_path, tmp_path / "tokenizer", steps=2, shuffle_buffer=1)
    train.run(config)
    lines = metrics_of(tmp_path / "tokenizer")
    # Eight samples of two steps: every second one is bad.
    assert lines[0]["skipped"] == 4
    assert (lines[1]["images"], lines[1]["skipped"]) == (2, 1)


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


def test_a_truncated_source_shard_is_an_error_without_a_traceback(data: Path, tmp_path: Path) -> None:
    whole = (data / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole[: len(whole) // 2])
    config = configuration(tmp_path, tmp_path / "tokenizer", holdout=[], workers=1)
    with pytest.raises(SourceError) as caught:
        train.run(config)
    assert "train-0.tar" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_without_held_out_images_the_summary_says_so(data: Path, tmp_path: Path) -> None:
    summary = train.run(configuration(data, tmp_path, holdout=[], steps=2))
    assert summary.result.psnr is None
    assert "no held-out images (train.holdout)" in str(summary)
    assert not (tmp_path / "reconstructions.png").exists()


# --- figures -------------------------------------------------------------------------------------------------


def test_psnr_is_taken_over_all_pixels_and_sums_add_up() -> None:
    tally, parts = Tally.empty(4, torch.device("cpu")), []
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for error, codes in ((10, [0, 0]), (30, [1, 3])):
        part = Tally.empty(4, torch.device("cpu"))
        for one in (tally, part):
            one.add(black, black + error, torch.tensor(codes))
        parts.append(part)
    assert tally.psnr == pytest.approx(10 * np.log10(255**2 / 500))
    assert tally.perplexity == pytest.approx(np.exp(1.5 * np.log(2)))
    assert tally.codes_used == 3
    assert torch.equal(parts[0].sums + parts[1].sums, tally.sums)


def test_a_perfect_reconstruction_has_a_finite_psnr() -> None:
    tally = Tally.empty(1, torch.device("cpu"))
    image = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    tally.add(image, image, torch.zeros(1, dtype=torch.int64))
    assert 60 < tally.psnr < 100
    assert tally.perplexity == 1


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [WarmupThenCosine(warmup=4, steps=12)(step) for step in range(13)]
    assert factors[:4] == [0.2, 0.4, 0.6, 0.8]
    assert factors[4] == 1
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[11] > 0
    assert factors[12] == pytest.approx(0)


def test_a_picture_shows_each_original_above_its_reconstruction() -> None:
    originals = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1).expand(10, 3, 4, 4) * 10
    png = Image.open(io.BytesIO(comparison_png(originals, originals + 100)))
    pixels = np.array(png)
    cell = 4 + 2  # an image and the line beside it
    shown = pixels[3::cell, 3::cell, 0]
    assert shown.shape == (4, 8)
    assert (shown[1, :8] == shown[0, :8] + 100).all()
    assert shown[2, :3].tolist() == [80, 90, 255]
    assert shown[3, :3].tolist() == [180, 190, 255]
