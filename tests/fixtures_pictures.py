"""Trainings on generated pictures, of which each test may write another configuration; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from pipeline.config import Config
from pipeline.jobs.training import job as train
from pipeline.records import JSON

SIDE = 16


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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two source shards with 12 images each, seeds 0 to 23, and one of 6 held-out images."""
    folder = tmp_path_factory.mktemp("data")
    write_tar(folder / "train-0.tar", [picture(i) for i in range(12)])
    write_tar(folder / "train-1.tar", [picture(i) for i in range(12, 24)])
    write_tar(folder / "heldout.tar", [picture(100 + i) for i in range(6)])
    return folder


def configuration(pictures: Path, folder: Path, **train: Any) -> Config:
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
        "holdout": [str(pictures / "heldout.tar")],
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
            "source": {"shards": str(pictures / "train-*.tar")},
            "image": {"size": SIDE},
            "tokenizer": {"path": str(folder)},
            "tokenize": {"store": str(folder / "store")},
            "train": {**defaults, **train},
        }
    )


@pytest.fixture(scope="session")
def short_training(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> train.TrainSummary:
    return train.run(configuration(pictures, tmp_path_factory.mktemp("trained") / "tokenizer"))


def metrics_of(folder: Path) -> list[JSON]:
    """The lines of metrics.jsonl without the one figure that time decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
