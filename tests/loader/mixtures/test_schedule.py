"""Which store a row is from: in proportion, evenly spread, the same for ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.loader.mixtures import schedule as schedule_module
from pipeline.loader.mixtures.schedule import Schedule

WEIGHTS = st.lists(st.floats(1e-6, 1), min_size=1, max_size=6).map(lambda some: tuple(w / sum(some) for w in some))
GOLDEN = [0, 0, 1, 0, 2, 1, 0, 1, 0, 2, 1, 0, 2, 0, 0, 1, 0, 2, 1, 0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0]


@given(WEIGHTS, st.integers(0, 2**70), st.integers(0, 2**50))
def test_any_stretch_has_the_stores_in_their_proportions(weights: tuple[float, ...], seed: int, start: int) -> None:
    stores = Schedule(weights, seed).at(start, 3000)
    for number, weight in enumerate(weights):
        deviation = np.cumsum(stores == number) - np.arange(1, 3001) * weight
        assert np.abs(deviation).max() < 5


@given(WEIGHTS, st.integers(0, 10**9), st.integers(0, 300))
def test_any_piece_is_that_piece_and_counts_are_of_it(weights: tuple[float, ...], start: int, count: int) -> None:
    schedule = Schedule(weights, seed=3)
    whole = schedule.at(start, count + 50)
    assert schedule.at(start + 50, count).tolist() == whole[50:].tolist()
    assert schedule.counts(start, count) == [int((whole[:count] == number).sum()) for number in range(len(weights))]


def test_long_stretches_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule((0.9, 0.1), 0)
    whole = schedule.counts(5, 1000)
    monkeypatch.setattr(schedule_module, "_COUNTED_AT_ONCE", 64)
    assert schedule.counts(5, 1000) == whole
    assert sum(whole) == 1000


def test_a_row_is_from_a_store_with_the_probability_of_its_weight() -> None:
    """Over seeds, at any one position."""
    firsts = np.array([Schedule((0.7, 0.3), seed).at(17, 1)[0] for seed in range(2000)])
    assert firsts.mean() == pytest.approx(0.3, abs=4 * (0.7 * 0.3 / 2000) ** 0.5)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.5, 0.0, 0.5, 0.0)])
def test_a_store_of_weight_0_is_never_read(weights: tuple[float, ...]) -> None:
    stores = set(Schedule(weights, 0).at(0, 10_000).tolist())
    assert stores == {number for number, weight in enumerate(weights) if weight}


def test_seeds_differ() -> None:
    assert len({tuple(Schedule((0.5, 0.5), seed).at(0, 40).tolist()) for seed in range(20)}) > 15


def test_no_version_changes_the_schedule() -> None:
    """Whoever resumes with a later version must meet the same stores: never change these numbers."""
    assert Schedule((0.5, 0.3, 0.2), 7).at(1000, 30).tolist() == GOLDEN
