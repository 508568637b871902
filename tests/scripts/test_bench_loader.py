"""`make bench-loader` on a few rows, and the proof that it notices what a loader loses."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import Done, cold
from loaders.cell import Cell, Condition, Counted
from loaders.memmap import Memmap
from loaders.peer import BATCH, Pattern, Peer
from loaders.rounds import NOT_INSTALLED, Entry, Plan, measure
from loaders.rows import open_rows, write_rows
from loaders.vqtok import Vqtok, VqtokIndices, VqtokKeys, VqtokRaw
from support import ROOT, import_path
from torch import Tensor

pytest_plugins = ["fixtures_store"]

START, END = "<!-- loader -->", "<!-- /loader -->"
ROWS, TOKENS = 2100, 16
"""Not a multiple of a batch, nor of a block."""

FAULTY = """
from loaders.memmap import Memmap

class Dropping(Memmap):
    def epoch(self, folder, shuffle, workers):
        first, *others = super().epoch(folder, shuffle, workers)
        return [first[1:], *others]
"""


class Faulty(Memmap):
    """Does something to the list of the batches of an epoch."""

    def __init__(self, fault: Callable[[list[Tensor]], list[Tensor]]) -> None:
        self._fault = fault

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        return self._fault(list(super().epoch(folder, shuffle, workers)))


class Disobedient(Memmap):
    """Answers requests with the row behind the one that was asked for."""

    def fetch(self, folder: Path) -> Callable[[Any], Any]:
        fetch = super().fetch(folder)
        return lambda request: fetch((np.asarray(request) + 1) % ROWS)


def damaged(batches: list[Tensor]) -> list[Tensor]:
    """One token is another one."""
    batches[-1].numpy()[3, 7] ^= 1
    return batches


def bench(*arguments: str | Path, path: Path | None = None) -> Done:
    """The script on few rows."""
    few = ["--rows", "1100", "--tokens", str(TOKENS), "--rounds", "2", "--seconds", "0.01"]
    environment = {"PYTHONPATH": import_path(path)} if path else {}
    script = ROOT / "scripts" / "benchmarks" / "bench_loader.py"
    return cold(sys.executable, script, *few, *arguments, environment=environment, timeout_s=280)


def count(peer: Peer, folder: Path, pattern: Pattern, workers: int = 0) -> Counted:
    """Write rows for a loader and count them."""
    write_rows(folder / "rows.npy", ROWS, TOKENS)
    rows = open_rows(folder / "rows.npy")
    (folder / "peer").mkdir()
    peer.write(rows, folder / "peer")
    return Cell(peer, folder / "peer", rows, Condition(TOKENS, pattern, workers)).count()


@pytest.mark.parametrize("pattern", Pattern)
@pytest.mark.parametrize("peer", [Memmap, Vqtok, VqtokRaw, VqtokIndices, VqtokKeys])
def test_loaders_deliver_every_row_once_and_what_was_asked_for(
    peer: type[Peer], pattern: Pattern, tmp_path: Path
) -> None:
    counted = count(peer(), tmp_path, pattern)
    assert (counted.problem, counted.delivers != "") == ("", True)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (lambda batches: batches[1:], f"{BATCH} rows missing, 0 repeated of 2,100"),
        (lambda batches: [batches[0][1:], *batches[1:]], "1 rows missing, 0 repeated of 2,100"),
        (lambda batches: [*batches, batches[0][:2]], "0 rows missing, 2 repeated of 2,100"),
        (lambda batches: [batches[0], *batches[:-1]], f"{ROWS % BATCH} rows missing, {BATCH} repeated of 2,100"),
        (damaged, "delivers damaged rows"),
        (lambda batches: [batch[:, :-1] for batch in batches], "delivers rows that were never written"),
        (lambda batches: [], "2,100 rows missing, 0 repeated of 2,100"),
    ],
    ids=["batch lost", "row lost", "rows repeated", "batch in place of another", "damaged", "cut", "nothing"],
)
def test_faults_are_found(fault: Callable[[list[Tensor]], list[Tensor]], problem: str, tmp_path: Path) -> None:
    assert count(Faulty(fault), tmp_path, Pattern.SEQUENTIAL).problem.startswith(problem)


def test_the_adapter_takes_tokens_where_a_batch_has_them_and_indices_where_it_has_not() -> None:
    tokens, index = torch.ones(2, 4, dtype=torch.uint16), torch.ones(2, 4, dtype=torch.int64)
    batch = SimpleNamespace(tokens=tokens, idx_Bl=[index], key=["a", "b"])
    assert Vqtok().tokens(batch)[0] is tokens
    assert VqtokKeys().tokens(batch)[0] is tokens
    assert VqtokIndices().tokens(batch)[0] is index
    assert Vqtok().tokens(SimpleNamespace(idx_Bl=[index]))[0] is index
    (stacked,) = Vqtok().tokens([SimpleNamespace(tokens=row) for row in tokens])
    assert (stacked.shape, stacked.dtype) == ((2, 4), np.uint16)


def test_a_shuffled_epoch_is_shuffled(tmp_path: Path) -> None:
    class Orderly(Memmap):
        def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
            return super().epoch(folder, False, workers)

    assert count(Orderly(), tmp_path, Pattern.SHUFFLED).problem == "does not shuffle"


@pytest.mark.parametrize("pattern", [Pattern.ROWS, Pattern.BATCHES])
def test_other_rows_than_asked_for_are_found(pattern: Pattern, tmp_path: Path) -> None:
    assert count(Disobedient(), tmp_path, pattern).problem == "delivers other rows than asked for"


@pytest.mark.slow
def test_the_script_measures_and_writes_its_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Benchmarks\n\nabove\n\n{START}\nold\n{END}\n\nbelow\n")
    done = bench("--only", "memmap", "--only", "vqtok-lz4", "--only", "zarr", "--markdown", page)
    assert done.status == 0, done.err
    text = page.read_text()
    assert text.startswith(f"# Benchmarks\n\nabove\n\n{START}\n## Loader\n")
    assert text.endswith(f"{END}\n\nbelow\n") and "old" not in text
    section = text.partition(START)[2].partition(END)[0]
    assert section.strip() in done.out
    rows = [line for line in section.splitlines() if line.startswith("| memmap in blocks") and "(1.00×)" in line]
    assert len(rows) == 2 and all(row.count("(1.00×)") == 4 for row in rows), section  # without workers, and with
    assert f'make bench-loader ARGS="--rows 1100 --tokens {TOKENS}' in section


@pytest.mark.slow
def test_a_loader_that_drops_a_row_makes_the_run_fail(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    done = bench("--only", "memmap", "--workers", "0", "--also", "faulty:Dropping", path=tmp_path)
    assert done.status == 1
    assert "faulty:Dropping: 16 tokens, sequential epoch, 0 workers: 1 rows missing, 0 repeated of 1,100" in done.err
    assert "**1 rows missing, 0 repeated of 1,100**" in done.out
    assert "memmap in blocks: " not in done.err


@pytest.mark.slow
def test_the_store_of_many_parts_is_opened() -> None:
    done = bench("--only", "opening", "--parts", "5", "--rounds", "1")
    assert done.status == 0, done.err
    assert "`TokenStore(path)` of 5 parts: 0.0" in done.out


def test_a_loader_that_is_not_installed_says_so(tmp_path: Path) -> None:
    plan = Plan({"absent": Entry("absent", "absent:Peer", needs="no_such_module")}, ROWS, [TOKENS], [0], 1, 0.01)
    results = measure(plan, tmp_path, lambda _: None)
    assert {result.reason for result in results.values()} == {NOT_INSTALLED}
    assert not any(result.failed for result in results.values())
