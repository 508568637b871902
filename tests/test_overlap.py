"""Stages beside each other: in order, in bounded memory, and ended when their consumer ends."""

import gc
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from pipeline.overlap import Turns, ordered_map, prefetch


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Counted:
    """Numbers from 0, counting how many were asked for; raises at `error_at`."""

    def __init__(self, count: int, error_at: int | None = None) -> None:
        self.count = count
        self.error_at = error_at
        self.taken = 0
        self.closed = False

    def __iter__(self) -> Generator[int, None, None]:
        try:
            for number in range(self.count):
                self.taken += 1
                if number == self.error_at:
                    raise OSError("the reader failed")
                yield number
        finally:
            self.closed = True


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def settled(count: Callable[[], int], least: int) -> int:
    """A number that grows in another thread, once it has been given time to grow beyond `least`."""
    deadline = time.monotonic() + 20
    while count() < least and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    return count()


def slow_when_even(number: int) -> int:
    time.sleep(0.004 if number % 2 == 0 else 0)
    return number * 10


@pytest.mark.parametrize("ahead", [1, 2, 7, 1000])
def test_results_come_in_order_whichever_is_done_first(pool: ThreadPoolExecutor, ahead: int) -> None:
    assert list(ordered_map(slow_when_even, range(40), pool, ahead)) == [number * 10 for number in range(40)]


def test_nothing_in_is_nothing_out(pool: ThreadPoolExecutor) -> None:
    assert list(ordered_map(slow_when_even, [], pool, 4)) == []
    assert list(prefetch([], 4)) == []


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_a_map_takes_no_more_than_so_many_ahead(pool: ThreadPoolExecutor, ahead: int) -> None:
    items = Counted(100)
    results = ordered_map(slow_when_even, items, pool, ahead)
    for done in range(10):
        assert next(results) == done * 10
        assert items.taken == done + ahead
    results.close()
    assert items.taken == 9 + ahead


def test_what_is_ahead_may_be_weighed(pool: ThreadPoolExecutor) -> None:
    items = Counted(40)
    results = ordered_map(slow_when_even, items, pool, 9, weight=lambda number: 1 + number % 4)
    weights = [1 + number % 4 for number in range(40)]
    for done in range(30):
        assert next(results) == done * 10
        in_flight = sum(weights[done : items.taken])
        assert 9 <= in_flight < 9 + 4
    assert list(results) == [number * 10 for number in range(30, 40)]


def test_heavy_items_keep_all_threads_busy_too(pool: ThreadPoolExecutor) -> None:
    items = Counted(40)
    results = ordered_map(slow_when_even, items, pool, 2, weight=lambda number: 10, at_least=5)
    for done in range(10):
        assert next(results) == done * 10
        assert items.taken == done + 5
    assert list(results) == [number * 10 for number in range(10, 40)]


def test_functions_run_beside_each_other(pool: ThreadPoolExecutor) -> None:
    meeting = threading.Barrier(4, timeout=20)  # passed only by four at once

    def meet(_: int) -> int:
        return meeting.wait()

    assert sorted(ordered_map(meet, range(4), pool, 4)) == [0, 1, 2, 3]


def test_an_error_of_the_function_comes_in_its_place(pool: ThreadPoolExecutor) -> None:
    def fail_at_5(number: int) -> int:
        if number == 5:
            raise MemoryError("at five")
        return number

    results = ordered_map(fail_at_5, range(100), pool, 8)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(MemoryError, match="at five"):
        next(results)
    assert list(results) == []


def test_an_error_of_the_source_ends_the_map(pool: ThreadPoolExecutor) -> None:
    results = ordered_map(slow_when_even, Counted(100, error_at=6), pool, 3)
    seen = []
    with pytest.raises(OSError, match="the reader failed"):
        seen.extend(iter(results))
    assert seen == [0, 10, 20, 30]  # what is in flight goes with it


def test_a_closed_map_cancels_what_has_not_begun() -> None:
    release, begun = threading.Event(), []

    def wait(number: int) -> int:
        begun.append(number)
        assert number == 0 or release.wait(20)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = ordered_map(wait, range(100), pool, 50)
        assert next(results) == 0
        results.close()
        release.set()
    assert len(begun) <= 2  # the one that was done and perhaps one under way, not fifty


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_prefetched_items_are_the_items(depth: int) -> None:
    assert list(prefetch(range(500), depth)) == list(range(500))
    assert prefetch_threads() == []


def test_a_value_of_none_is_an_item() -> None:
    assert list(prefetch([None, 0, None], 1)) == [None, 0, None]


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetching_is_bounded(depth: int) -> None:
    items = Counted(100)
    results = prefetch(items, depth)
    for done in range(1, 4):
        next(results)
        # Those that wait, and the one that has nowhere to wait yet.
        assert settled(lambda: items.taken, done + depth + 1) == done + depth + 1
    results.close()


def test_items_are_made_in_another_thread() -> None:
    def thread_names() -> Iterator[str]:
        yield threading.current_thread().name

    assert list(prefetch(thread_names(), 1)) == ["prefetch"]


def test_nothing_begins_before_the_first_item_is_asked_for() -> None:
    items = Counted(5)
    results = prefetch(items, 1)
    assert (items.taken, prefetch_threads()) == (0, [])
    results.close()


def test_an_error_of_the_source_comes_behind_the_good_items() -> None:
    seen = []
    with pytest.raises(OSError, match="the reader failed"):
        seen.extend(iter(prefetch(Counted(10, error_at=7), 2)))
    assert seen == list(range(7))
    assert prefetch_threads() == []


def test_even_an_interrupt_of_the_source_reaches_the_consumer() -> None:
    def interrupted() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    results = prefetch(interrupted(), 5)
    assert next(results) == 1
    with pytest.raises(KeyboardInterrupt):
        next(results)


def test_a_signal_that_another_thread_gets_ends_the_wait() -> None:
    """As one does that arrives just before the main thread falls asleep."""

    class Stop(Exception):
        pass

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stop

    waiting, go_on = threading.Event(), threading.Event()
    was_stopped: list[bool] = []

    def hanging() -> Iterator[int]:
        waiting.set()
        was_stopped.append(go_on.wait(10))
        yield 1

    def send() -> None:
        waiting.wait()
        time.sleep(0.3)  # by now the consumer is asleep
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Stop):
            list(prefetch(hanging(), 1, interrupt=go_on.set))
        assert was_stopped == [True]
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_source_that_cannot_be_iterated_fails_and_hangs_nobody() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise OSError("no such source")

    with pytest.raises(OSError, match="no such source"):
        next(prefetch(Broken(), 1))
    assert prefetch_threads() == []


@pytest.mark.parametrize("taken", [1, 5])
def test_closing_stops_the_thread_and_closes_the_source(taken: int) -> None:
    items = Counted(10**9)
    source = iter(items)  # held here, so that nothing but closing can end it
    results = prefetch(source, 3)
    for _ in range(taken):
        next(results)
    results.close()
    assert prefetch_threads() == []
    assert items.closed
    assert items.taken <= taken + 4


def test_an_error_of_the_consumer_stops_the_thread() -> None:
    def consume() -> None:
        for number in prefetch(Counted(10**9), 3):
            if number == 4:
                raise ValueError("the consumer failed")

    with pytest.raises(ValueError, match="the consumer failed"):
        consume()
    gc.collect()
    assert prefetch_threads() == []


def test_a_forgotten_generator_leaves_no_thread() -> None:
    results = prefetch(Counted(10**9), 3)
    next(results)
    del results
    gc.collect()
    assert prefetch_threads() == []


def test_stages_can_be_stacked(pool: ThreadPoolExecutor) -> None:
    items = Counted(300)
    stacked = prefetch(ordered_map(slow_when_even, prefetch(items, 3), pool, 8), 2)
    assert next(stacked) == 0
    stacked.close()
    assert prefetch_threads() == []
    assert items.closed
    assert list(prefetch(ordered_map(slow_when_even, prefetch(range(60), 3), pool, 8), 2)) == list(range(0, 600, 10))


def test_what_several_threads_want_is_made_by_one_of_them(pool: ThreadPoolExecutor) -> None:
    """And another thing meanwhile, by another."""
    turns, made, together = Turns(), dict[str, int](), threading.Barrier(2, timeout=30)

    def want(what: str) -> int:
        with turns.of(what):
            if what not in made:
                together.wait()  # which two can pass only while both make something
                made[what] = len(made)
            return made[what]

    assert len(set(pool.map(want, "abab"))) == 2
    assert not turns._wanted
    with pytest.raises(ZeroDivisionError), turns.of("a"):
        raise ZeroDivisionError
    with turns.of("a"):
        pass
