"""One step of the optimizer, in one batch or in several."""

from pathlib import Path

import pytest
import torch
from fixtures_pictures import configuration, metrics_of, picture, write_tar
from safetensors.torch import load_file

from pipeline.jobs.training import job as train

pytest_plugins = ["fixtures_pictures"]


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


def test_bad_images_are_skipped_and_counted(pictures: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", [picture(1), b"no image", picture(2), picture(3)[:60]])
    write_tar(tmp_path / "heldout.tar", [b"", picture(4), picture(5)])
    config = configuration(tmp_path, tmp_path / "tokenizer", steps=2, shuffle_buffer=1)
    train.run(config)
    lines = metrics_of(tmp_path / "tokenizer")
    # Eight samples of two steps: every second one is bad.
    assert lines[0]["skipped"] == 4
    assert (lines[1]["images"], lines[1]["skipped"]) == (2, 1)
