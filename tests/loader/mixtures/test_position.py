"""Places of a mixture: steps add up, and epochs end."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.loader.mixtures.position import Course
from pipeline.loader.mixtures.schedule import Schedule

COURSE = Course(Schedule([0.2, 0.5, 0.3], 1), [7, 50, 3], batch_size=4, world_size=3, rows_per_epoch=130)


@given(st.integers(0, 60), st.integers(0, 60))
def test_steps_add_up(first: int, more: int) -> None:
    begin = COURSE.beginning
    there = COURSE.after(begin, first + more)
    assert COURSE.after(COURSE.after(begin, first), more) == there
    assert (there.position, there.delivered) == (4 * (first + more), 12 * (first + more))


def test_an_epoch_ends_with_its_last_whole_step() -> None:
    left = [COURSE.steps_left(COURSE.after(COURSE.beginning, steps)) for steps in range(12)]
    assert left == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    endless = Course(Schedule([1.0], 0), [5], batch_size=2, world_size=1, rows_per_epoch=None)
    assert endless.steps_left(endless.beginning) is None


@given(st.integers(0, 40), st.integers(0, 40))
def test_steps_go_on_in_later_epochs(first: int, more: int) -> None:
    there = COURSE.later(COURSE.later(COURSE.beginning, first), more)
    assert COURSE.later(COURSE.beginning, first + more) == there
    one_by_one = COURSE.beginning
    for _ in range(first + more):
        one_by_one = COURSE.later(one_by_one, 1)
    assert one_by_one == there
    if first + more:
        assert (there.epoch, there.delivered // 12) == ((first + more - 1) // 10, (first + more - 1) % 10 + 1)


@given(st.integers(0, 40), st.integers(0, 5))
def test_epochs_begin_where_those_before_end(steps: int, epoch: int) -> None:
    now = COURSE.later(COURSE.beginning, steps)
    begun = COURSE.beginning_of(now.epoch, COURSE.beginning, COURSE.beginning)
    found = COURSE.beginning_of(epoch, now, begun)
    assert (found.epoch, found.position, found.delivered) == (epoch, epoch * 40, 0)
    assert found.stores == COURSE.after(COURSE.beginning, epoch * 10).stores
