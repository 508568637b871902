"""Small pieces of memory that share what is mapped."""

import gc
import random
from threading import Thread

import numpy as np

from pipeline.store.memory.small_blocks import _SLAB_BYTES, SmallBlocks
from pipeline.store.memory.space import Space


def test_no_two_in_use_overlap() -> None:
    blocks, chosen = SmallBlocks(Space()), random.Random(0)
    wrong: list[int] = []

    def use(mark: int) -> None:
        held: list[np.ndarray] = []
        for _ in range(400):
            block = blocks.take(chosen.randrange(60_000))
            block[:] = mark
            held.append(block[len(block) // 2 :].view())
            if len(held) > 20:
                del held[chosen.randrange(len(held))]
            if not all((view == mark).all() for view in held):
                wrong.append(mark)

    threads = [Thread(target=use, args=(mark,)) for mark in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_slabs_are_used_again_and_given_back() -> None:
    space = Space()
    blocks = SmallBlocks(space)
    for _ in range(3):
        held = [blocks.take(_SLAB_BYTES // 16) for _ in range(64)]
        assert all(space.has(block) for block in held)
        starts = {block.ctypes.data // 64 for block in held}
        assert len(starts) == 64
        del held
        gc.collect()
        one = blocks.take(1)
        assert len(blocks._with_room) <= 2
        assert all(slab.spans.is_free or slab.address <= one.ctypes.data for slab in blocks._with_room.values())
