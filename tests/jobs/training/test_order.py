"""The order of training samples: each once an epoch, from any position the same, in bounded windows."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples

from pipeline.jobs.training.order import GROUP_SHARDS, Extent, Order, Window

EXTENTS = st.lists(st.builds(Extent, st.integers(0, 70), st.booleans()), min_size=1, max_size=8).filter(
    lambda extents: any(extent.samples for extent in extents)
)
GOLDEN = [(1, 19), (1, 0), (1, 18), (0, 1), (0, 0), (0, 3)]


def samples(window: Window) -> list[tuple[int, int]]:
    return list(zip(window.shards.tolist(), window.samples.tolist(), strict=True))


def first_windows(order: Order, stop: int, position: int = 0) -> list[Window]:
    return list(itertools.takewhile(lambda window: window.start < stop, order.windows(position)))


@settings(max_examples=examples(40))
@given(EXTENTS, st.integers(1, 90), st.integers(0, 2**70))
def test_every_sample_comes_once_an_epoch_in_windows_of_the_buffer(
    extents: list[Extent], buffer: int, seed: int
) -> None:
    order = Order(extents, buffer, seed)
    total = order.samples
    assert total is not None
    windows = first_windows(order, 3 * total)
    drawn = [sample for window in windows for sample in samples(window)]
    everything = {(shard, i) for shard, extent in enumerate(extents) for i in range(extent.samples)}
    assert all(set(drawn[start : start + total]) == everything for start in range(0, 3 * total, total))
    assert len(drawn) == 3 * total
    assert max(len(window.shards) for window in windows) <= buffer
    assert [window.start for window in windows] == [0, *itertools.accumulate(len(w.shards) for w in windows)][:-1]


@settings(max_examples=examples(40))
@given(EXTENTS, st.integers(9, 90), st.integers(0, 300))
def test_from_any_position_the_order_is_the_same(extents: list[Extent], buffer: int, position: int) -> None:
    order = Order(extents, buffer, seed=5)
    stop = position + 2 * (order.samples or 0)
    expected = [w for w in first_windows(order, stop) if w.start + len(w.shards) > position]
    found = first_windows(order, stop, position)
    assert [window.start for window in found] == [window.start for window in expected]
    for one, other in zip(found, expected, strict=True):
        assert samples(one) == samples(other)
        assert one.mirrored.tolist() == other.mirrored.tolist()


@settings(max_examples=examples(40))
@given(EXTENTS, st.integers(5, 40))
def test_what_can_only_be_read_forward_is_read_forward(extents: list[Extent], buffer: int) -> None:
    order = Order(extents, buffer, seed=2)
    last: dict[int, int] = {}
    for window in first_windows(order, order.samples or 0):
        for shard, extent in enumerate(extents):
            here = window.samples[window.shards == shard]
            if len(here) and not extent.jumps:
                assert sorted(here.tolist()) == list(range(last.get(shard, -1) + 1, here.max() + 1))
                last[shard] = int(here.max())


@settings(max_examples=examples(40))
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 50))
def test_processes_share_windows_batch_by_batch(world_size: int, batch_size: int, origin: int) -> None:
    order = Order([Extent(100, True)], 17, seed=0)
    windows = first_windows(order, 100)
    turns = {
        window.start + int(i): rank
        for rank in range(world_size)
        for window in windows
        for i in window.share(origin, batch_size, rank, world_size)
    }
    assert turns == {place: (place - origin) // batch_size % world_size for place in range(origin, 100)}


def test_one_large_shard_is_mixed_from_end_to_end() -> None:
    """Samples sorted by class must not come class after class."""
    window = next(Order([Extent(50_000, True)], 1000, seed=0).windows(0))
    assert set(window.samples // 5000) == set(range(10))


def test_the_order_begins_before_everything_is_counted_and_ends_there() -> None:
    extents: list[Extent | None] = [Extent(3, True)] * 200
    whole = first_windows(Order(extents, 50, seed=1), 600)
    counted = [int(s) for s in dict.fromkeys(s for w in whole for s in w.shards.tolist())][:GROUP_SHARDS]
    some = Order([extents[i] if i in counted else None for i in range(200)], 50, seed=1)
    assert some.samples is None
    windows = list(some.windows(0))
    assert sum(len(window.shards) for window in windows) == 3 * GROUP_SHARDS
    assert [samples(window) for window in windows] == [samples(w) for w in whole[: len(windows)]]


def test_epochs_and_seeds_differ_and_half_is_mirrored() -> None:
    windows = first_windows(Order([Extent(2000, True)], 500, seed=0), 4000)
    orders = [samples(window) for window in windows] + [
        samples(window) for window in first_windows(Order([Extent(2000, True)], 500, seed=1), 2000)
    ]
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    mirrored = np.concatenate([window.mirrored for window in windows])
    assert 1800 < mirrored.sum() < 2200
    assert (mirrored[:2000] != mirrored[2000:]).any()


def test_no_version_changes_the_order() -> None:
    """A training may outlive a version of numpy, and of this file."""
    window = next(Order([Extent(5, False), Extent(20, True)], 12, seed=3).windows(7))
    assert samples(window)[:6] == GOLDEN
