"""An excerpt of the hostile stores and tokenizers of `python -m chaos.hostile`, and whether harm would be noticed."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from support import in_a_child

from chaos import hostile
from chaos.forgeries import STORES, TOKENIZERS
from chaos.hostile import Outcome, Sound, make_sound, run_cases


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """What is forged."""
    made: Sound = in_a_child(make_sound, tmp_path_factory.mktemp("sound"))
    return made


def read(sound: Sound, numbers: Iterable[int], folder: Path) -> list[Outcome]:
    """What comes of these cases; they are forks, of a process that has no threads."""
    outcomes: list[Outcome] = in_a_child(read_here, sound, list(numbers), folder, timeout_s=1700)
    return outcomes


def read_here(sound: Sound, numbers: Iterable[int], folder: Path) -> list[Outcome]:
    return list(run_cases(numbers, sound, folder))


def test_hostile_stores_and_tokenizers_do_no_harm(sound: Sound, tmp_path: Path) -> None:
    outcomes = read(sound, range(12), tmp_path)
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
    assert sum(outcome.refused for outcome in outcomes) > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_do_no_harm(sound: Sound, tmp_path: Path) -> None:
    outcomes = read(sound, range(1000, 1400), tmp_path)
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
    kinds = {f"{thing}: {kind}" for thing, kinds in (("store", STORES), ("tokenizer", TOKENIZERS)) for kind in kinds}
    assert {outcome.what for outcome in outcomes} == kinds


# --- what a reading would notice --------------------------------------------------------------------------


def do_harm(folder: Path) -> list[str]:
    """One case whose reading runs code, changes what lies outside, takes memory and fails in Python's own words."""

    def harmful(sound: Sound, store: Path) -> hostile.Reading:
        (store / "ran").touch()
        (store.with_name("outside") / "precious").write_text("yours")
        bytearray(hostile.MOST_BYTES + (1 << 26))[:: 1 << 12] = b"x" * ((hostile.MOST_BYTES >> 12) + (1 << 14))
        reading = hostile._Forged()
        reading.ask("division", lambda: 1 / 0)
        return reading

    hostile._read_store = hostile._read_tokenizer = harmful
    (outcome,) = run_cases([0], make_sound(folder / "sound"), folder / "cases")
    return [problem.rpartition(": ")[2] for problem in outcome.problems]


def test_harm_is_noticed(tmp_path: Path) -> None:
    division, grown, elsewhere, code = in_a_child(do_harm, tmp_path)
    assert (division, elsewhere, code) == ("division by zero", "files elsewhere are others", "code ran")
    assert grown.startswith("took ")
