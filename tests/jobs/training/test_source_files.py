"""Source shards of a training are compared by what they are, wherever they lie."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_store import good_samples, write_shard
from fixtures_training import TrainingJob

from pipeline.errors import TokenizerError
from pipeline.jobs.training.birth import find_result

pytest_plugins = ["fixtures_store", "fixtures_training"]


def test_the_same_files_elsewhere_are_the_same_and_others_are_not(halted: TrainingJob, tmp_path: Path) -> None:
    def elsewhere(name: str, change: Callable[[Path], object] = lambda folder: None) -> TrainingJob:
        halted.source = shutil.copytree(original, tmp_path / name)  # with the time of now, as `cp` does
        for path in halted.source.iterdir():
            path.touch()
        change(halted.source)
        return halted.write(holdout=f"{halted.source}/heldout.tar")

    def one_byte(folder: Path) -> None:
        data = bytearray((folder / "train-1.tar").read_bytes())
        data[700] ^= 1
        (folder / "train-1.tar").write_bytes(data)

    original = halted.source
    assert find_result(elsewhere("same").config()) is None
    changes: dict[str, tuple[Callable[[Path], object], str]] = {
        "added": (
            lambda folder: write_shard(folder / "train-2.tar", good_samples(90, 2)),
            "train-2.tar]: 10,240 bytes",
        ),
        "removed": (lambda folder: (folder / "train-1.tar").unlink(), "train-1.tar]: null here, "),
        "edited": (one_byte, "train-1.tar]: "),
        "renamed": (lambda folder: (folder / "train-1.tar").rename(folder / "train-9.tar"), "train-9.tar]: "),
    }
    for name, (change, line) in changes.items():
        job = elsewhere(name, change)
        with pytest.raises(TokenizerError, match=re.escape(f"source.shards[{line}")):
            find_result(job.config())
        assert find_result(job.config(), allow_change=True) is None
