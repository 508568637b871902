"""Every page holds what it says: its blocks run, and what does not run names nothing that is not there."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.blocks import PAGES, blocks_of, commands_in_text, read_page
from docs.checking import command_problems, problems
from docs.running import run_page
from fixtures_store import Child
from support import ROOT

README = "README.md"
RUN = [
    page
    for page in PAGES
    if any(block.mark != "not run" and block.language in ("sh", "python") for block in blocks_of(read_page(page)))
]

SMALL: dict[str, dict[str, Any]] = {
    "image": {"size": 16},
    "train": {
        "model": {
            "vocab_size": 32,
            "embedding_dim": 4,
            "hidden_dim": 8,
            "final_relu": False,
            "ema_decay": 0.9,
            "kmeans_init": True,
            "revive_after": 10,
        },
        "steps": 40,
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "shuffle_buffer": 32,
    },
}
"""What configs/sample.yaml says instead, for seconds instead of minutes."""


def follow(folder: Path, page: str, small: bool) -> None:
    """Do in a folder what a page says; the sample data set has a few crops of each photograph where `small`."""
    os.chdir(folder)
    if small:
        from pipeline.jobs.sampling import job

        job.PHOTOGRAPHS = tuple(photo.model_copy(update={"crops": 6}) for photo in job.PHOTOGRAPHS)
    run_page(page, small)


def followed(folder: Path, page: str, small: bool) -> Path:
    """The folder after `follow` in a process of its own."""
    done = Child(follow, folder, page, small, folder=folder.with_name(f"{folder.name}-output")).wait(250)
    assert done.status == 0, done.out + done.err
    return folder


def clone(folder: Path) -> Path:
    """A working folder that looks like a clone of the repository after `make setup`, with a small configuration."""
    for name in ("Makefile", "pyproject.toml", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "configs", folder / "configs")
    sample = folder / "configs/sample.yaml"
    tree = yaml.safe_load(sample.read_text())
    for section, values in SMALL.items():
        tree[section] |= values
    sample.write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What those have who have followed the README."""
    return followed(clone(tmp_path_factory.mktemp("small")), README, small=True)


@pytest.fixture(scope="module")
def after_whole_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with the whole data set, and every process that the README starts."""
    return followed(clone(tmp_path_factory.mktemp("whole")), README, small=False)


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(after_readme: Path, tmp_path: Path, page: str) -> None:
    """In processes of their own where that is quick; below, as they stand."""
    if page != README:
        followed(Path(shutil.copytree(after_readme, tmp_path / "clone", symlinks=True)), page, small=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_as_they_stand(after_whole_readme: Path, tmp_path: Path, page: str) -> None:
    if page != README:
        followed(Path(shutil.copytree(after_whole_readme, tmp_path / "clone", symlinks=True)), page, small=False)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_what_is_there(page: str) -> None:
    text = read_page(page)
    found = [f"{block.place}: {problem}" for block in blocks_of(text, page) for problem in problems(block)]
    found += [f"{page}: `{span}`: {problem}" for span in commands_in_text(text) for problem in command_problems(span)]
    assert found == []
