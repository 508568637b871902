"""The order of an epoch: lanes and windows as pure functions, each row once however often the world changes."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.loader import epochs as order_module
from pipeline.loader.epochs import EpochOrder, Leg, Segment, bounds, cut, lanes

CHUNK_ROWS = 16
WINDOW_CHUNKS = 4
GOLDEN = [13, 7, 10, 0, 18, 16, 2, 17, 1, 20, 14, 15, 9, 8, 19, 3, 5, 12, 11, 6, 4]
CHUNKS = st.lists(st.integers(1, CHUNK_ROWS), max_size=30)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 4 chunks."""
    monkeypatch.setattr(order_module, "WINDOW_CHUNKS", WINDOW_CHUNKS)


def order_of(chunks: list[int], world_size: int = 1, shuffle: bool = True, seed: int = 0, epoch: int = 0) -> EpochOrder:
    return EpochOrder(np.array([0, *accumulate(chunks)]), world_size, shuffle, seed, epoch)


def rows_of(order: EpochOrder, segments: list[Segment]) -> list[int]:
    return [row for segment in segments for window in order.windows(segment) for row in window.rows.tolist()]


def sizes(rows: int, stages: list[Leg]) -> list[int]:
    return [sum(map(len, lane)) for lane in lanes(rows, stages)]


@pytest.mark.parametrize(
    ("rows", "parts", "expected"),
    [
        (0, 1, [(0, 0)]),
        (0, 3, [(0, 0), (0, 0), (0, 0)]),
        (1, 3, [(0, 0), (0, 0), (0, 1)]),  # lanes may be empty
        (10, 1, [(0, 10)]),
        (10, 3, [(0, 3), (3, 6), (6, 10)]),
        (2**40, 2, [(0, 2**39), (2**39, 2**40)]),
    ],
)
def test_ranges_are_cut_evenly(rows: int, parts: int, expected: list[tuple[int, int]]) -> None:
    assert bounds(rows, parts) == expected


def test_cutting_segments_keeps_their_order() -> None:
    segments = [Segment(2, 5, 8), Segment(0, 0, 4)]
    assert cut(segments, 0, 7) == segments
    assert cut(segments, 2, 4) == [Segment(2, 7, 8), Segment(0, 0, 1)]
    assert cut(segments, 3, 99) == [Segment(0, 0, 4)]
    assert cut(segments, 7, 99) == cut(segments, 3, 3) == cut([], 0, 5) == []


@given(CHUNKS, st.integers(1, 5), st.booleans(), st.integers(0, 2**40), st.integers(0, 1000))
def test_every_row_comes_once(chunks: list[int], world_size: int, shuffle: bool, seed: int, epoch: int) -> None:
    order = order_of(chunks, world_size, shuffle, seed, epoch)
    by_rank = [rows_of(order, lane) for lane in lanes(order.rows, [Leg(world_size)])]
    assert sorted(row for rows in by_rank for row in rows) == list(range(sum(chunks)))
    assert max(map(len, by_rank)) - min(map(len, by_rank)) <= 1
    again = order_of(chunks, world_size, shuffle, seed, epoch)
    assert [rows_of(again, lane) for lane in lanes(order.rows, [Leg(world_size)])] == by_rank


@given(CHUNKS, st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60)), min_size=1, max_size=5))
@example([CHUNK_ROWS] * 10, [(1, 0)] * 5)
@example([CHUNK_ROWS] * 10, [(3, 10**9), (2, 5)])
def test_each_row_comes_once_however_the_world_changes(chunks: list[int], stages: list[tuple[int, int]]) -> None:
    rows = sum(chunks)
    order = order_of(chunks, stages[0][0])
    seen: list[int] = []
    passed: list[Leg] = []
    for world_size, taken in stages:
        now = lanes(rows, [*passed, Leg(world_size)])
        lengths = [sum(map(len, lane)) for lane in now]
        assert max(lengths) - min(lengths) <= 1
        for lane in now:
            seen += rows_of(order, cut(lane, 0, taken))
        passed.append(Leg(world_size, taken))
    rest = [segment for lane in lanes(rows, passed) for segment in cut(lane, passed[-1].taken, rows)]
    assert sorted(seen + rows_of(order, rest)) == list(range(rows))


def test_where_the_work_of_ranks_ends_others_go_on() -> None:
    assert sizes(100, [Leg(4)]) == [25] * 4
    assert sizes(100, [Leg(4, 10), Leg(3)]) == [20] * 3
    assert lanes(100, [Leg(4, 10), Leg(2)]) == [
        [Segment(0, 10, 25), Segment(1, 10, 25)],
        [Segment(2, 10, 25), Segment(3, 10, 25)],
    ]
    assert sizes(100, [Leg(4, 10), Leg(3, 20), Leg(7)]) == [0] * 7
    assert sizes(100, [Leg(1, 99), Leg(3)]) == [0, 0, 1]


@given(CHUNKS, st.integers(1, 4), st.booleans())
def test_no_run_of_a_window_leaves_its_chunk(chunks: list[int], world_size: int, shuffle: bool) -> None:
    order = order_of(chunks, world_size, shuffle)
    for segment in (segment for lane in lanes(order.rows, [Leg(world_size)]) for segment in lane):
        for window in order.windows(segment):
            first, last = (
                np.searchsorted(order.chunk_starts, rows, side="right")
                for rows in (window.starts, window.starts + window.lengths - 1)
            )
            assert np.array_equal(first, last)
            assert (window.lengths > 0).all()
            assert len(window.starts) <= WINDOW_CHUNKS + 1


@given(CHUNKS, st.integers(1, 4))
def test_without_shuffling_lanes_are_ranges_in_order(chunks: list[int], world_size: int) -> None:
    order = order_of(chunks, world_size, shuffle=False)
    found = [row for lane in lanes(order.rows, [Leg(world_size)]) for row in rows_of(order, lane)]
    assert found == list(range(sum(chunks)))


@given(CHUNKS, st.integers(1, 4), st.data())
def test_any_piece_of_a_lane_is_that_piece(chunks: list[int], world_size: int, data: st.DataObject) -> None:
    order = order_of(chunks, world_size)
    lane = data.draw(st.integers(0, world_size - 1))
    ((start, stop),) = bounds(order.rows, world_size)[lane : lane + 1]
    first = data.draw(st.integers(0, stop - start))
    last = data.draw(st.integers(first, stop - start))
    whole = rows_of(order, [Segment(lane, 0, stop - start)])
    assert rows_of(order, [Segment(lane, first, last)]) == whole[first:last]


def test_a_window_is_of_whole_chunks_and_no_more_than_it_may() -> None:
    order = order_of([CHUNK_ROWS] * 11)
    windows = [window.rows for window in order.windows(Segment(0, 0, order.rows))]
    assert [len(window) for window in windows] == [64, 64, 48]
    for window in windows:
        assert set(np.bincount(window // CHUNK_ROWS).tolist()) == {0, CHUNK_ROWS}


def test_seed_epoch_and_world_change_the_order() -> None:
    def found(**options: int) -> tuple[int, ...]:
        return tuple(rows_of(order_of([CHUNK_ROWS] * 20, **options), [Segment(0, 0, 100)]))

    orders = {found(seed=s, epoch=e, world_size=w) for s in (0, 1) for e in (0, 1) for w in (1, 2)}
    assert len(orders) == 8


def test_no_version_changes_the_order() -> None:
    """Whoever resumes an epoch with a later version must meet the same rows: never change these numbers."""
    assert rows_of(order_of([4, 3, 4, 2, 4, 4], seed=7, epoch=3), [Segment(0, 0, 21)]) == GOLDEN


def test_parts_can_be_shuffled_some_at_a_time() -> None:
    chunks, of_part = [CHUNK_ROWS] * 24, 4
    order = EpochOrder(np.array([0, *accumulate(chunks)]), 1, True, 0, 0, np.arange(0, 25, of_part), groups=2)
    rows = np.asarray(rows_of(order, [Segment(0, 0, order.rows)]))
    assert sorted(rows.tolist()) == list(range(order.rows))
    parts = (rows // (CHUNK_ROWS * of_part)).reshape(3, -1)
    assert [len(set(some.tolist())) for some in parts] == [2, 2, 2]


def test_the_shuffle_is_as_good_as_the_documentation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 chunks that are mixed, one in 64 neighbours is of the same chunk."""
    monkeypatch.setattr(order_module, "WINDOW_CHUNKS", 64)
    rows = np.asarray(rows_of(order_of([CHUNK_ROWS] * 3200), [Segment(0, 0, 3200 * CHUNK_ROWS)]))
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.05
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.05
    assert (rows[:-1] // CHUNK_ROWS == rows[1:] // CHUNK_ROWS).mean() == pytest.approx(1 / 64, rel=0.1)
