"""Room that is handed out and taken back: pieces in use never overlap, and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.memory.spans import Spans

START, STOP = 3, 200


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 4, 16]), st.integers(0, 3)), max_size=80))
def test_against_a_list_of_numbers(steps: list[tuple[int, int, int]]) -> None:
    spans, free, used = Spans(START, STOP), set(range(START, STOP)), list[tuple[int, int]]()
    for size, align, gone in steps:
        start = spans.take(size, align)
        fits = any(free.issuperset(range(first, first + size)) for first in range(0, STOP, align))
        assert (start is not None) == fits
        if start is not None:
            taken = set(range(start, start + size))
            assert taken <= free and start % align == 0
            free -= taken
            used.append((start, size))
        for _ in range(min(gone, len(used))):
            start, size = used.pop(len(used) * gone // 4)
            spans.give_back(start, size)
            free |= set(range(start, start + size))
        assert {number for first, stop in spans.holes for number in range(first, stop)} == free
        assert all(stop < first for (_, stop), (first, _) in zip(spans.holes, spans.holes[1:], strict=False))
        assert spans.is_free == (not used)


def test_what_came_back_is_the_last_to_be_handed_out_again() -> None:
    spans = Spans(0, 40)
    assert [spans.take(10) for _ in range(2)] == [0, 10]
    spans.give_back(0, 10)
    assert [spans.take(10) for _ in range(4)] == [20, 30, 0, None]


def test_nothing_is_given_back_twice() -> None:
    spans = Spans(0, 40)
    assert spans.take(10) == 0
    with pytest.raises(AssertionError):
        spans.give_back(5, 10)
    spans.give_back(0, 10)
    with pytest.raises(AssertionError):
        spans.give_back(0, 10)
    assert spans.is_free
