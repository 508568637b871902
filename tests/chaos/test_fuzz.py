"""An excerpt of the damages that `make chaos` does to stores, and whether their readings would be noticed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import Child
from support import in_a_child

from chaos import damages, fuzz
from chaos.fuzz import Outcome, Sound, draw_case, make_sound, run_cases
from chaos.readings import Reading
from pipeline.errors import CorruptStore
from pipeline.store.arrays import storage


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Sound]:
    """Stores of several chunks and of one."""
    found: list[Sound] = in_a_child(make_sounds, tmp_path_factory.mktemp("sound"))
    return found


def make_sounds(folder: Path) -> list[Sound]:
    return [make_sound(folder / "lz4", "lz4", 100), make_sound(folder / "raw", "raw", storage.CHUNK_BYTES)]


def read(sounds: Sequence[Sound], places: Sequence[str], numbers: Iterable[int], folder: Path) -> list[Outcome]:
    """What comes of these cases; they are forks, of a process that has no threads."""
    outcomes: list[Outcome] = in_a_child(read_here, sounds, places, list(numbers), folder, timeout_s=1700)
    return outcomes


def read_here(sounds: Sequence[Sound], places: Sequence[str], numbers: Sequence[int], folder: Path) -> list[Outcome]:
    return list(run_cases((draw_case(number, sounds, places) for number in numbers), folder))


def problems_of(outcomes: Sequence[Outcome]) -> list[str]:
    return [problem for outcome in outcomes for problem in outcome.problems]


def test_damaged_stores_are_read_right_or_refused(sounds: list[Sound], tmp_path: Path) -> None:
    outcomes = read(sounds, ("local",), range(30), tmp_path)
    assert problems_of(outcomes) == []
    assert sum(outcome.right for outcome in outcomes) > 100
    assert sum(outcome.refused for outcome in outcomes) > 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_so_are_those_of_objects_and_those_in_a_cache(sounds: list[Sound], tmp_path: Path) -> None:
    outcomes = read(sounds, fuzz.PLACES, range(1000, 1300), tmp_path)
    assert problems_of(outcomes) == []
    assert min(Counter(outcome.place for outcome in outcomes).values()) > 50
    assert {outcome.damage for outcome in outcomes} == {*damages.KINDS}


def run_with_one_variant(arguments: list[str]) -> None:
    fuzz.VARIANTS = fuzz.VARIANTS[:1]
    fuzz.main(arguments)


@pytest.mark.slow
def test_the_long_run_prints_its_table(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    arguments = ["--cases", "3", "--jobs", "1", "--markdown", str(file)]
    done = Child(run_with_one_variant, arguments, folder=tmp_path / "output").wait()
    assert done.status == 0, done.err
    assert "0 problems" in file.read_text()
    assert file.read_text().startswith("| damaged | damages | answers | right | refused | problems |")


# --- what a reading would notice --------------------------------------------------------------------------


def refuse(message: str) -> None:
    raise CorruptStore(message)


def divide() -> float:
    return 1 / 0


def test_wrong_values_and_unclear_ends_are_noticed() -> None:
    reading = Reading()
    reading.ask("equal", lambda: np.arange(3), np.arange(3))
    reading.ask("clear", lambda: refuse("store/manifest.json: not a manifest"), 0)
    assert (reading.right, reading.refused, reading.problems) == (1, 1, [])
    reading.ask("other value", lambda: np.arange(3), np.arange(3) + 1)
    reading.ask("other type", lambda: np.arange(3, dtype=np.int32), np.arange(3))
    reading.ask("other length", lambda: [1], [1, 2])
    reading.ask("no file", lambda: refuse("something is wrong"), 0)
    reading.ask("bare", divide, 0)
    reading.command("status", "--config", "nowhere.yaml")
    assert [problem.split(":")[0] for problem in reading.problems] == [
        "other value",
        "other type",
        "other length",
        "no file",
        "bare",
    ]


@pytest.mark.slow
def test_the_same_number_is_the_same_damage(sounds: list[Sound], tmp_path: Path) -> None:
    first, second = (
        [
            (outcome.what, outcome.damage, outcome.right, outcome.refused)
            for outcome in read(sounds[:1], ("local",), (3, 4), tmp_path / name)
        ]
        for name in ("first", "second")
    )
    assert first == second
