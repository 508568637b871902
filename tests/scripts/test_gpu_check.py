"""`make gpu-check` where there is no GPU: it says so, and the checks that a CPU can do run."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gpu_check
import pytest
import torch
from fixtures_store import Done, cold
from gpu.check import Bench, Line, answers
from gpu.collection import Collection
from gpu.processes import run
from support import ROOT, import_path

pytest_plugins = ["fixtures_store"]

HEAD = "| | what | figures |\n| --- | --- | --- |\n"


def check(*arguments: str) -> Done:
    script = ROOT / "scripts" / "gpu_check.py"
    return cold(sys.executable, script, *arguments, environment={"PYTHONPATH": import_path(ROOT)}, timeout_s=280)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so() -> None:
    done = check()
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert done.err.startswith("no CUDA device here: nothing was checked")


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch has been told of a CUDA device")
@pytest.mark.usefixtures("on_a_cpu")
def test_checks_within_a_process_hold_on_a_cpu(tmp_path: Path) -> None:
    words = ("digest", "tokens", "short", "streams", "search")
    lines = list(gpu_check.asked(tmp_path, "cpu", time.monotonic() + 200, words))
    assert len(lines) == 8
    assert [line for line in lines if not line.ok] == []


@pytest.mark.slow
def test_the_script_runs_on_a_cpu() -> None:
    names = ("killed", "sigkill", "assert", "processes", "launchers", "batch")
    words = [word for name in names for word in ("--only", name)]
    done = check("--device", "cpu", *words)
    assert (done.status, done.err) == (0, ""), done.out
    intro, _, rows = done.out.partition(HEAD)
    assert intro.startswith("`make gpu-check` on ")
    *table, last = rows.strip().splitlines()
    assert last.startswith("0 not ok; ")
    lines = [line for line in table if line]
    assert {line.split("|")[1].strip() for line in lines} == {"ok", "skipped"}
    assert len(lines) == 10
    assert sum(line.startswith("| skipped") for line in lines) == 2


def fails(bench: Bench) -> Iterator[Line]:
    yield Line("the first", True, "1 | 2")
    raise ValueError("no\nsecond")


def test_a_check_that_fails_is_a_line_and_the_others_are_asked(tmp_path: Path) -> None:
    bench = Bench(torch.device("cpu"), tmp_path, Collection(tmp_path, 8, 8, 8), True, time.monotonic() + 60)
    first, second = map(str, answers(fails, bench))
    assert first == "| ok | the first | 1 / 2 |"
    assert second.startswith("| **NOT OK** | fails | ValueError (test_gpu_check.py:")
    assert second.endswith("): no second |")
    (late,) = answers(fails, Bench(bench.device, tmp_path, bench.collection, True, time.monotonic() - 1))
    assert str(late) == "| skipped | fails | no time left: --limit |"


def takes_two_seconds(bench: Bench) -> Iterator[Line]:
    done = run([sys.executable, "-c", "import time; time.sleep(2)"], bench.folder / "log", bench.seconds_left)
    yield Line("two seconds", done.status == 0)


def test_a_check_that_has_begun_comes_to_its_end_when_the_time_is_over(tmp_path: Path) -> None:
    bench = Bench(torch.device("cpu"), tmp_path, Collection(tmp_path, 8, 8, 8), True, time.monotonic() + 0.1)
    assert [line.ok for line in answers(takes_two_seconds, bench)] == [True]
