"""A small training, once, and folders in which it has not come to its end; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures_store import Child, Done, good_samples, vqtok, write_shard

from pipeline.config import Config, load_config
from pipeline.jobs.training import job as train
from pipeline.records import JSON

CHECKPOINTS = (18, 24)
"""Steps of those that the small training leaves."""


@dataclass
class TrainingJob:
    """A configuration file for `vqtok train`, and what it makes."""

    folder: Path
    source: Path
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    def write(self, source: str = "", image: JSON | None = None, **values: Any) -> "TrainingJob":
        """The configuration with some values of `train`, of `image`, or another source."""
        self.values |= values
        tree = {
            "source": {"shards": source or f"{self.source}/train-*.tar"},
            "image": {"size": 16} | (image or {}),
            "tokenizer": {"path": str(self.tokenizer)},
            "tokenize": {"store": str(self.folder / "store"), "batch_size": 4},
            "train": {
                # All that keeps a state between steps.
                "model": {
                    "vocab_size": 32,
                    "embedding_dim": 4,
                    "hidden_dim": 8,
                    "final_relu": False,
                    "ema_decay": 0.9,
                    "kmeans_init": True,
                    "revive_after": 1,
                },
                "holdout": f"{self.source}/heldout.tar",
                "steps": 24,
                "batch_size": 4,
                "learning_rate": 0.01,
                "warmup_steps": 2,
                "shuffle_buffer": 6,
                "log_every": 4,
                "evaluate_every": 12,
                "checkpoint_every": 6,
                **self.values,
            },
        }
        self.folder.mkdir(exist_ok=True)
        self.file.write_text(yaml.safe_dump(tree))
        return self

    def config(self, *overrides: str) -> Config:
        return load_config(self.file, overrides)

    def start(self, command: str = "train", *arguments: str, **options: Any) -> Child:
        return vqtok(command, "--config", self.file, *arguments, folder=self.folder, **options)

    def run(self, *arguments: str) -> Done:
        """`vqtok train`, to its end."""
        return self.start("train", *arguments).wait()

    @property
    def checkpoints(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.tokenizer.glob("checkpoints/step-*"))

    @property
    def born(self) -> JSON:
        """train.json."""
        return dict(json.loads((self.tokenizer / "train.json").read_text()))

    @property
    def weights(self) -> bytes:
        return (self.tokenizer / "model.safetensors").read_bytes()

    def lines(self, kind: str) -> list[JSON]:
        """The lines of metrics.jsonl of one kind."""
        found = [json.loads(line) for line in (self.tokenizer / "metrics.jsonl").read_text().splitlines()]
        return [line for line in found if line["kind"] == kind]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two source shards with 12 images each, and one of 6 held-out images."""
    folder = tmp_path_factory.mktemp("images")
    for number, (name, count) in enumerate((("train-0", 12), ("train-1", 12), ("heldout", 6))):
        write_shard(folder / f"{name}.tar", good_samples(20 * number, count))
    return folder


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """24 steps, undisturbed. Read only: use `finished_training` to change it."""
    job = TrainingJob(tmp_path_factory.mktemp("trained"), images).write()
    train.run(job.config())
    return job


@pytest.fixture
def untrained(images: Path, tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path / "job", images).write()


@pytest.fixture
def finished_training(trained: TrainingJob, tmp_path: Path) -> TrainingJob:
    """A copy of the finished training."""
    shutil.copytree(trained.tokenizer, tmp_path / "job/tokenizer")
    return TrainingJob(tmp_path / "job", trained.source).write()


@pytest.fixture
def halted(finished_training: TrainingJob) -> TrainingJob:
    """The same as a kill after the checkpoint of step 18 leaves it."""
    folder = finished_training.tokenizer
    shutil.rmtree(folder / "checkpoints/step-000024")
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    edit_birth(finished_training, lambda birth: birth.update(result=None))
    return finished_training


def edit_birth(job: TrainingJob, edit: Callable[[JSON], object]) -> None:
    """Change train.json."""
    birth = job.born
    edit(birth)
    (job.tokenizer / "train.json").write_text(json.dumps(birth))
