"""A damaged checkpoint is not resumed from, and is no new beginning."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from fixtures_training import TrainingJob
from support import sampled

from pipeline.errors import TokenizerError
from pipeline.jobs.training import job as train
from pipeline.jobs.training.checkpoint_files import write_contents

pytest_plugins = ["fixtures_store", "fixtures_training"]


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    sampled(
        ("optimizer.bin", lambda data: data[:500], r"optimizer\.bin has 500 bytes, [\d,]+ were written"),
        ("model.safetensors", lambda data: data[:-1] + b"!", r"model\.safetensors holds other bytes than were written"),
        ("random_states_0.pkl", None, r"random_states_0\.pkl: No such file or directory"),
        ("contents.json", lambda data: bytes(len(data)), r"contents\.json cannot be read"),
    ),
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    name: str, damage: Any, reason: str, finished_training: TrainingJob, trained: TrainingJob
) -> None:
    (finished_training.tokenizer / "config.json").unlink()
    path = finished_training.tokenizer / "checkpoints/step-000024" / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    done = finished_training.run()
    assert done.status == 0, done.err
    assert len(re.findall(rf"step-000024: damaged \({reason}\); goes on from step 18\n", done.err)) == 1
    assert "resumed from the checkpoint of step 18" in done.err
    assert finished_training.checkpoints == [18, 24]
    assert finished_training.weights == trained.weights
    assert not train.run(finished_training.config()).trained


class Mischief:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("is_recorded", [True, False])
def test_random_states_with_code_are_neither_run_nor_passed_over(
    is_recorded: bool, finished_training: TrainingJob, trained: TrainingJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a record of the files that fits, as its author can make it, and without."""
    (finished_training.tokenizer / "config.json").unlink()
    newest = finished_training.tokenizer / "checkpoints/step-000024"
    (newest / "random_states_0.pkl").write_bytes(pickle.dumps(Mischief(newest / "ran")))
    (newest / "contents.json").unlink()
    if is_recorded:
        write_contents(newest)
    assert train.run(finished_training.config()).trained
    assert not (newest / "ran").exists()
    assert "step-000024: damaged (random_states_0.pkl holds no random states" in capsys.readouterr().err
    assert finished_training.weights == trained.weights


def test_an_older_checkpoint_that_cannot_be_loaded_falls_back_too(
    finished_training: TrainingJob, trained: TrainingJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no record of its files, so that only loading shows the damage."""
    (finished_training.tokenizer / "config.json").unlink()
    newest = finished_training.tokenizer / "checkpoints/step-000024"
    (newest / "contents.json").unlink()
    (newest / "optimizer.bin").write_bytes(b"torn")
    assert train.run(finished_training.config()).trained
    assert len(re.findall(r"step-000024: damaged \(.*\); goes on from step 18\n", capsys.readouterr().err)) == 1
    assert finished_training.weights == trained.weights


def test_no_whole_checkpoint_is_not_a_new_beginning(halted: TrainingJob) -> None:
    for path in halted.tokenizer.glob("checkpoints/*/optimizer.bin"):
        path.write_bytes(b"")
    with pytest.raises(TokenizerError, match="and so is every other checkpoint; put one back from a copy, or delete"):
        train.run(halted.config())
    assert halted.checkpoints == [18]
