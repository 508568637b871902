"""Memory that is handed out again, and never while anything looks at it."""

import gc

import numpy as np

from pipeline.store.memory.buffers import Buffers

SIZE = 1 << 17


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_memory_comes_back_with_the_last_view() -> None:
    buffers = Buffers(1 << 20)
    array = buffers.take(SIZE)
    array[:] = 7
    first = address(array)
    view = array.view(np.uint16).reshape(-1, 8)[3:5]
    del array
    gc.collect()
    other = buffers.take(SIZE)
    other[:] = 9
    assert (view == 0x0707).all()
    del view
    gc.collect()
    assert address(buffers.take(SIZE - 100)) == first


def test_no_more_is_kept_than_may_be() -> None:
    buffers = Buffers(3 * SIZE)
    arrays = [buffers.take(SIZE) for _ in range(10)]
    assert len({address(array) for array in arrays}) == 10
    del arrays
    gc.collect()
    assert buffers._kept_bytes == sum(len(kept) for kept in buffers._kept.values()) * SIZE == 3 * SIZE


def test_sizes_do_not_mix() -> None:
    buffers = Buffers(1 << 24)
    for size in (1, SIZE, SIZE + 1, 5 * SIZE, SIZE):
        array = buffers.take(size)
        array[:] = 1
        assert array.shape == (size,)
        del array
