"""Too large a batch, an assertion on the device, SIGKILL: nothing is lost, and what is wrong is said."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from gpu.check import Bench, Line, skipped
from gpu.processes import run, started, vqtok
from pipeline.config import Config
from pipeline.errors import VqtokError
from pipeline.jobs.tokenizing import job as tokenize

_SHARE = 0.01
"""Of the device's memory: what a batch is too large for."""


def a_batch_too_large(bench: Bench) -> Iterator[Line]:
    """With little of the device's memory, a batch that does not fit: one error, with a number that does."""
    what = "a batch too large is one error that names a tokenize.batch_size which fits"
    if not bench.on_gpu:
        yield skipped(what, "no GPU")
        return
    memory = torch.cuda.get_device_properties(bench.device).total_memory
    # Activations of the first layer alone take twice what there is.
    bytes_of_image = 4 * 128 * (bench.collection.side // 2) ** 2
    batch = max(64, int(2 * _SHARE * memory) // bytes_of_image)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(_SHARE, bench.device)
    try:
        said = _refusal(bench, batch)
        proposed = re.search(r"set tokenize\.batch_size=(\d+)", said)
        then = _refusal(bench, int(proposed[1])) if proposed else "no number is named"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
        torch.cuda.empty_cache()
    yield Line(
        what, not then, f"batches of {batch}: {said[:300] or 'no error'}; {then[:300] or 'with these all is well'}"
    )


def _refusal(bench: Bench, batch: int) -> str:
    """What a job of such batches is refused with; empty where it comes to its end."""
    config = bench.collection.config("large", tokenize={"batch_size": batch})
    try:
        tokenize.run(config, show_progress=False)
    except VqtokError as error:
        return str(error)
    return ""


def a_device_assert(bench: Bench) -> Iterator[Line]:
    """An assertion that fails on the device while images are encoded: the process ends, and the next one does all."""
    what = "an assertion on the device ends the process, without a commit or a claim"
    config = bench.collection.config("assert")
    script, claims = Path(__file__).with_name("broken.py"), Path(config.tokenize.store) / "claims"
    options = ["--no-progress", "--config", bench.collection.folder / "assert.yaml"]
    command = [sys.executable, *map(str, [script, claims, "tokenize", *options])]
    done = run(command, bench.folder / "assert", bench.seconds_left)
    left = _left(config)
    words = done.last_words
    yield Line(what, done.status == 1 and left == (0, 0), f"status {done.status}, {_told(left)}; {words}")
    tokenize.run(config, show_progress=False)
    yield _same(bench, config, "the next run does all of it")


def sigkill(bench: Bench) -> Iterator[Line]:
    """A kill after the first commit, and another process that goes on."""
    config = bench.collection.config("killed")
    file = bench.collection.folder / "killed.yaml"
    with started(vqtok("tokenize", "--no-progress", "--config", file), bench.folder / "killed") as running:
        seen = running.until(lambda: _left(config)[0] > 0, bench.seconds_left)
        running.kill()
    left = _left(config)
    yield Line("SIGKILL after a commit", seen, _told(left))
    tokenize.run(config, show_progress=False)
    yield _same(bench, config, "resumed to the same digest")


def _same(bench: Bench, config: Config, what: str) -> Line:
    expected, _ = bench.collection.tokenized("expected")
    found = bench.collection.digest(config)
    return Line(what, found == expected, f"{found[:12]} {expected[:12]}")


def _left(config: Config) -> tuple[int, int]:
    """Commits and claims of a store."""
    store = Path(config.tokenize.store)
    return len(list(store.glob("commits/*.json"))), len(list(store.glob("claims/*.json")))


def _told(left: tuple[int, int]) -> str:
    return f"{left[0]} commits, {left[1]} claims"
