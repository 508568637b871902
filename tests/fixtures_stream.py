"""Collections of numbered images, and what a training draws of them; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import itertools
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support import encoded, write_tar

from pipeline.config import Config
from pipeline.jobs.training.collection import Collection, count_samples
from pipeline.jobs.training.shards import training_shards
from pipeline.jobs.training.stream import Place, training_batches

SIDE = 4
BATCH = 4


def picture(number: int) -> bytes:
    """A PNG whose upper corners tell its number, and of which half is lighter, so that mirrored ones are known."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[0, :, 0], pixels[0, :, 1] = number % 256, number // 256
    pixels[1, : SIDE // 2] = 200
    return encoded(Image.fromarray(pixels), "PNG")


def write_images(path: Path, numbers: Sequence[int], bad: Sequence[int] = ()) -> Path:
    members = []
    for number in numbers:
        members += [(f"{number}.png", b"bad" if number in bad else picture(number)), (f"{number}.cls", b"1")]
    return write_tar(path, members, tarfile.PAX_FORMAT)


class Images(NamedTuple):
    """A collection of `count` images, numbers 0 to count - 1."""

    shards: list[str]
    count: int


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Images]:
    """One large tar, many small ones, the output of commands, and all of them mixed."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "large.tar", range(90))
    sizes = [3, 9, 1, 6, 0, 5, 8, 2, 7, 4, 3, 9]
    for i, (size, end) in enumerate(zip(sizes, itertools.accumulate(sizes), strict=True)):
        write_images(folder / f"small-{i:02}.tar", range(end - size, end))
    write_images(folder / "more.tar", range(90, 120))
    write_images(folder / "forward.tar", range(120, 143))
    pipe = f"pipe:cat {folder}/"
    return {
        "large": Images([f"{folder}/large.tar"], 90),
        "small": Images([f"{folder}/small-*.tar"], sum(sizes)),
        "pipe": Images([f"{pipe}large.tar", f"{pipe}more.tar"], 120),
        "mixed": Images([f"{folder}/large.tar", f"{folder}/more.tar", f"{pipe}forward.tar"], 143),
    }


def configuration(shards: Sequence[str], **train: Any) -> Config:
    return Config.model_validate(
        {
            "source": {"shards": list(shards), "allow_pipe": True},
            "image": {"size": SIDE},
            "tokenizer": {"path": "unused"},
            "tokenize": {"store": "unused"},
            "train": {"batch_size": BATCH, "shuffle_buffer": 20, **train},
        }
    )


def counted(config: Config) -> Collection:
    return count_samples(config, training_shards(config), needed=10**6)


def drawn(
    config: Config, collection: Collection, steps: int, position: int = 0, ranks: int = 1
) -> list[tuple[int, bool]]:
    """(number, mirrored) of what all ranks draw in some steps: one step after the other, in each by rank."""
    streams = [
        training_batches(config, collection, Place(position, rank, ranks), torch.device("cpu")) for rank in range(ranks)
    ]
    batches = [next(stream) for _ in range(steps) for stream in streams]
    for stream in streams:
        stream.close()
    return [item for batch in batches for item in numbers(batch.img_B3HW)]


def numbers(img_B3HW: torch.Tensor) -> Iterator[tuple[int, bool]]:
    """(number, mirrored) of each image."""
    for values in img_B3HW.int():
        yield int(values[0, 0, 0] + 256 * values[1, 0, 0]), int(values[0, 1, 0]) == 0
