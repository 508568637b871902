"""Many reads at a time, in order, and many writes."""

import threading

import pytest

from pipeline.errors import CorruptStore
from pipeline.files.each import read_each, read_sound, write_each


@pytest.mark.parametrize("count", [0, 1, 32, 33, 700])
def test_all_are_read_in_order(count: int) -> None:
    names = [str(number) for number in range(count)]
    assert read_each(lambda name: name * 2, names) == [name * 2 for name in names]


def test_many_are_read_at_a_time_and_the_first_error_counts() -> None:
    together = threading.Barrier(8)

    def read(name: str) -> str:
        if int(name) % 32 == 0:
            together.wait(60)  # one of each lot: passes only where eight lots are read at once
        if int(name) > 100:
            raise FileNotFoundError(name)
        return name

    with pytest.raises(FileNotFoundError, match=r"^101$"):
        read_each(read, [str(number) for number in range(256)])
    assert together.n_waiting == 0
    assert not together.broken


@pytest.mark.parametrize("count", [3, 200])
def test_damaged_ones_hide_no_others(count: int) -> None:
    def read(name: str) -> str:
        if int(name) % 3 == 1:
            raise CorruptStore(name)
        return name

    sound, damage = read_sound(read, [str(number) for number in range(count)])
    assert sound == [str(number) for number in range(count) if number % 3 != 1]
    assert [str(error) for error in damage] == [str(number) for number in range(count) if number % 3 == 1]


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_all_are_written_and_an_error_is_raised(count: int) -> None:
    written: list[int] = []
    write_each(written.append, range(count))
    assert sorted(written) == list(range(count))

    def fail(number: int) -> None:
        if number == count - 1:
            raise FileNotFoundError(str(number))

    if count:
        with pytest.raises(FileNotFoundError, match=rf"^{count - 1}$"):
            write_each(fail, range(count))


def test_sixteen_are_written_at_a_time() -> None:
    together = threading.Barrier(16)
    write_each(lambda number: together.wait(60), range(32))
    assert not together.broken
