"""Passes that follow each other: each row once in each, over all ranks, however often the world changes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.loader.mixtures.passes import Progress, Share, Stretch, share, whole_share

Row = tuple[int, int]
"""Number of the pass, place in it."""


def places(own: Share, rows: int) -> list[Row]:
    starts = [rows * lane // own.world_size for lane in range(own.world_size)]
    return [
        (own.number, starts[segment.lane] + place)
        for segment in own.segments
        for place in range(segment.start, segment.stop)
    ]


def delivered(progress: Progress, rank: int, rows: int, rounds: int) -> list[Row]:
    """What a rank takes in so many rounds."""
    own, first = share(progress, rank, rows)
    found = places(own, rows)
    while len(found) < rounds:
        own, first = whole_share(own.number + 1, progress.stretches[-1].world_size, rank, first, rows)
        found += places(own, rows)
    return found[:rounds]


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 25)), min_size=1, max_size=6))
@example(8, [(3, 3), (3, 2)])  # a pass ends within a round
@example(1, [(5, 7)])  # fewer rows than ranks
@example(10, [(3, 1), (2, 0), (4, 1), (3, 20)])
def test_each_row_comes_once_per_pass_and_no_pass_begins_early(rows: int, stages: list[tuple[int, int]]) -> None:
    progress = Progress(0, (Stretch(1),))
    seen: list[Row] = []
    for world_size, rounds in stages:
        progress = progress.at(world_size)
        for rank in range(world_size):
            seen += delivered(progress, rank, rows, rounds)
        progress = progress.after(rounds, rows)
        whole, more = divmod(len(seen), rows)
        assert (progress.number, progress.delivered) == (whole, more)
        assert len(set(seen)) == len(seen)
        in_pass = [sum(row[0] == number for row in seen) for number in range(whole + 1)]
        assert in_pass == [rows] * whole + [more]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 40), st.integers(0, 40))
def test_a_rank_goes_on_where_it_was(rows: int, world_size: int, before: int, after: int) -> None:
    begin = Progress(0, (Stretch(world_size),))
    for rank in range(world_size):
        whole = delivered(begin, rank, rows, before + after)
        assert delivered(begin.after(before, rows), rank, rows, after) == whole[before:]
    assert begin.after(before, rows).after(after, rows) == begin.after(before + after, rows)


def test_where_a_store_stands_takes_a_few_numbers_however_far_it_is() -> None:
    progress = Progress(0, (Stretch(7),)).after(10**15, rows=1_000_003)
    assert (progress.number * 1_000_003 + progress.delivered, len(progress.stretches)) == (7 * 10**15, 1)


@pytest.mark.parametrize(
    ("stretches", "world_size", "expected"),
    [
        ((Stretch(2, 6),), 2, (Stretch(2, 6),)),
        ((Stretch(2, 6),), 3, (Stretch(2, 6), Stretch(3))),
        ((Stretch(2, 6), Stretch(3)), 4, (Stretch(2, 6), Stretch(4))),  # nothing was delivered by 3
        ((Stretch(2),), 4, (Stretch(4),)),
    ],
)
def test_another_number_of_ranks_begins_a_stretch(
    stretches: tuple[Stretch, ...], world_size: int, expected: tuple[Stretch, ...]
) -> None:
    assert Progress(5, stretches).at(world_size) == Progress(5, expected)
