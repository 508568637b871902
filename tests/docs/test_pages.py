"""Every page holds what it says: its blocks run, and what does not run names nothing that is not there."""

import json
import multiprocessing
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fixtures_store import Child, store_of_rows
from support import ROOT, free_port

from docs.blocks import PAGES, blocks_of, commands_in_head, commands_in_text, keys_in_text, read_page
from docs.checking import command_problems, key_problems, problems
from docs.running import run_page
from pipeline.world import end_process

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
            "embedding_dim": 8,
            "hidden_dim": 16,
            "final_relu": False,
            "ema_decay": 0.9,
            "kmeans_init": True,
            "revive_after": 10,
        },
        "steps": 100,
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "shuffle_buffer": 32,
    },
}
"""What configs/sample.yaml says instead, for seconds instead of minutes; still much better than the mean image."""


def clone(folder: Path) -> Path:
    """A working folder that looks like a clone of the repository after `make setup`, with a small configuration."""
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv/installed").unlink(missing_ok=True)
    (folder / ".venv/installed").touch()  # newer than all that it is made of: no test installs anything
    shutil.copytree(ROOT / "configs", folder / "configs")
    sample = folder / "configs/sample.yaml"
    tree = yaml.safe_load(sample.read_text())
    for section, values in SMALL.items():
        tree[section] |= values
    sample.write_text(yaml.safe_dump(tree))
    return folder


def follow(folder: Path, small: bool) -> None:
    """Do what the README says in a clone, then in copies of it what each other page says.

    All in one process, for imports take longer than the rest. Prints how each page fails. The sample data set has a
    few crops of each photograph where `small`.
    """
    if small:
        from pipeline.jobs.sampling import job

        job.PHOTOGRAPHS = tuple(photo.model_copy(update={"crops": 6}) for photo in job.PHOTOGRAPHS)
    multiprocessing.set_start_method(None, force=True)  # of workers: the default, as in a process of a user's own
    environment, failed = dict(os.environ), False
    for page in RUN:
        own = folder if page == README else folder.with_name(Path(page).stem)
        if page != README:
            shutil.copytree(folder, own, symlinks=True)
        os.chdir(own)
        try:
            run_page(page, small)
        except Exception:
            traceback.print_exc()
            failed = True
            if page == README:  # the others begin where it ends
                break
        os.environ.clear()
        os.environ.update(environment)
    sys.exit(failed)


def test_the_blocks_of_all_pages_run(tmp_path: Path) -> None:
    """Most of them in one process; below, as they stand."""
    done = Child(follow, clone(tmp_path / "clone"), True, folder=tmp_path / "output").wait(280)
    assert done.status == 0, done.err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_blocks_of_all_pages_run_as_they_stand(tmp_path: Path) -> None:
    done = Child(follow, clone(tmp_path / "clone"), False, folder=tmp_path / "output").wait(1700)
    assert done.status == 0, done.err


def loop_of_the_loader_page(folder: Path, out: str) -> None:
    """The first block of the page in a store's folder, and afterwards the rows of one more epoch."""
    os.chdir(folder)
    names: dict[str, Any] = {}
    exec(blocks_of(read_page("docs/loader.md"))[0].code, names)
    rows = [row for batch in names["loader"] for row in batch.row.tolist()]
    Path(f"{out}-{names['accelerator'].process_index}").write_text(json.dumps(rows))
    end_process()


def test_the_loop_of_the_loader_page_shares_the_rows_between_two_ranks_on_cpus(tmp_path: Path) -> None:
    """Under the variables that torchrun sets."""
    table = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    store_of_rows(tmp_path / "runs/sample/store", [400, 331], table=table)
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = [
        Child(
            loop_of_the_loader_page,
            tmp_path,
            str(tmp_path / "rows"),
            folder=tmp_path / "output",
            environment={**world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [rank.wait().status for rank in ranks] == [0, 0]
    first, second = (json.loads((tmp_path / f"rows-{rank}").read_text()) for rank in range(2))
    assert len({*first, *second}) == len(first) + len(second) == 2 * 256


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_what_is_there(page: str) -> None:
    text = read_page(page)
    found = [f"{block.place}: {problem}" for block in blocks_of(text, page) for problem in problems(block)]
    found += [f"{page}: `{span}`: {problem}" for span in commands_in_text(text) for problem in command_problems(span)]
    found += [f"{page}: `{key}`: {problem}" for key in keys_in_text(text) for problem in key_problems(key)]
    assert found == []


@pytest.mark.parametrize("pattern", ["configs/*.yaml", "scripts/cluster/*"])
def test_configurations_and_recipes_name_only_what_is_there(pattern: str) -> None:
    texts = {path.name: path.read_text() for path in ROOT.glob(pattern)}
    named = [(name, command) for name, text in texts.items() for command in commands_in_head(text)]
    assert named
    assert [(name, problem) for name, command in named for problem in command_problems(command)] == []
