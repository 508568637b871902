"""As many batches as `len` says, on every rank, and every row once: for any rows, ranks, batches and remainder.

A rank that makes a step more than another waits for ever in a collective.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import pytest
from fixtures_store import store_of_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import examples, sampled
from torch.utils.data import DataLoader

from pipeline.loader import TokenBatch, TokenLoader
from pipeline.loader.loader import Remainder
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays

ROWS = 260
REMAINDERS: list[Remainder] = ["uneven", "drop", "pad"]

pytestmark = pytest.mark.filterwarnings("ignore:.*fill no batch:UserWarning")

rows = st.integers(0, ROWS)
world_sizes = st.integers(1, 5)
batch_sizes = st.sampled_from([1, 2, 7, 8, 32, 64, 600])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """260 rows in chunks of at most 16 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        return TokenStore(store_of_rows(tmp_path_factory.mktemp("remainder") / "store", [100, 160]))


def real_rows(batches: Iterable[TokenBatch]) -> list[int]:
    """The rows of batches, without those that only fill them up."""
    return [
        row
        for batch in batches
        for row in (batch.row if batch.mask is None else batch.row[batch.mask.numpy()]).tolist()
    ]


def check(of_ranks: list[list[TokenBatch]], remainder: str, batch_size: int, expected: Iterable[int]) -> None:
    """Raise AssertionError unless the batches of all ranks hold the expected rows once, in equally many steps."""
    steps, expected = [len(own) for own in of_ranks], list(expected)
    found = Counter(row for own in of_ranks for row in real_rows(own))
    if remainder == "drop":
        assert set(found.values()) <= {1}
        assert set(found) <= set(expected)
        assert len(expected) - found.total() < batch_size * len(of_ranks)
    else:
        assert found == Counter(expected)
    if remainder == "uneven":
        assert max(steps) - min(steps) <= 1
    else:
        assert len(set(steps)) == 1
        assert {len(batch) for own in of_ranks for batch in own} <= {batch_size}


@pytest.mark.parametrize("remainder", REMAINDERS)
@settings(max_examples=examples(120))
@given(rows=rows, world_size=world_sizes, batch_size=batch_sizes, shuffle=st.booleans(), stop=st.integers(0, 6))
@example(rows=193, world_size=2, batch_size=32, shuffle=True, stop=0)
@example(rows=193, world_size=2, batch_size=32, shuffle=True, stop=2)
def test_all_ranks_make_the_steps_that_they_announce(
    store: TokenStore, remainder: Remainder, rows: int, world_size: int, batch_size: int, shuffle: bool, stop: int
) -> None:
    loaders = [
        TokenLoader(store, batch_size, shuffle, 0, rank, world_size, range(rows), remainder)
        for rank in range(world_size)
    ]
    whole = [list(loader) for loader in loaders]
    assert [len(own) for own in whole] == [len(loader) for loader in loaders]
    check(whole, remainder, batch_size, range(rows))

    # The second epoch is interrupted and goes on.
    stop = min([stop, *map(len, loaders)])
    state = loaders[0].state_after(stop)
    second = [list(loader) for loader in loaders]
    for loader in loaders:
        loader.load_state_dict(state)
    rest = [list(loader) for loader in loaders] if stop < max(map(len, loaders)) else [[] for _ in loaders]
    assert [[batch.row.tolist() for batch in own] for own in rest] == [
        [batch.row.tolist() for batch in own[stop:]] for own in second
    ]


@pytest.mark.parametrize("remainder", REMAINDERS)
@settings(max_examples=examples(60))
@given(
    rows=rows,
    worlds=st.tuples(world_sizes, world_sizes),
    batches=st.tuples(batch_sizes, batch_sizes),
    stop=st.integers(0, 6),
)
def test_ranks_that_take_over_make_equally_many_steps(
    store: TokenStore, remainder: Remainder, rows: int, worlds: tuple[int, int], batches: tuple[int, int], stop: int
) -> None:
    before, after = (
        [TokenLoader(store, size, True, 0, rank, world, range(rows), remainder) for rank in range(world)]
        for world, size in zip(worlds, batches, strict=True)
    )
    steps = min([stop, *(max(len(loader) - 1, 0) for loader in before)])
    seen = real_rows(batch for loader in before for batch in islice(loader, steps))
    state = before[0].state_dict()
    for loader in after:
        loader.load_state_dict(state)
    check([list(loader) for loader in after], remainder, batches[1], set(range(rows)) - set(seen))


@pytest.mark.parametrize("workers", sampled(2, 1))
@pytest.mark.parametrize(
    ("rows", "batch_size", "world_size"), [(193, 32, 2), *sampled((3, 2, 4), (129, 32, 4), (65, 8, 2))]
)
def test_workers_make_the_same_steps(
    store: TokenStore, rows: int, batch_size: int, world_size: int, workers: int
) -> None:
    for rank in range(world_size):
        for remainder in REMAINDERS:
            alone, loader = (
                TokenLoader(store, batch_size, True, 0, rank, world_size, range(rows), remainder) for _ in range(2)
            )
            stop = len(loader) // 2
            loader.load_state_dict(loader.state_after(stop))
            of_workers = list(DataLoader(loader, batch_size=None, num_workers=workers))
            assert [batch.row.tolist() for batch in of_workers] == [batch.row.tolist() for batch in alone][stop:]
