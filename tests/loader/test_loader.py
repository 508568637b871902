"""`TokenLoader`: every row once per epoch, over any number of ranks, from any point on."""

import faulthandler
import gc
import json
import signal
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_space import gather_from, range_at
from fixtures_store import begin_store, finish_store, make_birth, make_shard, store_of_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from support import in_a_fork

from pipeline.errors import CorruptStore, StoreError
from pipeline.loader import TokenBatch, TokenLoader
from pipeline.loader import epochs as order_module
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays
from pipeline.store.memory.reserved import Reserved
from pipeline.store.memory.space import space
from pipeline.store.writing.writer import commit_part

ROWS = 331


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """331 rows in parts of uneven sizes, in chunks of at most 16 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        return TokenStore(store_of_rows(tmp_path_factory.mktemp("loader") / "store", [100, 0, 7, 1, 223]))


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 4 chunks."""
    monkeypatch.setattr(order_module, "WINDOW_CHUNKS", 4)


def ranks(store: TokenStore, world_size: int, **options: object) -> list[TokenLoader]:
    options = {"remainder": "uneven", **options}
    return [TokenLoader(store, rank=rank, world_size=world_size, **options) for rank in range(world_size)]  # type: ignore[arg-type]


def keys_of(batches: list[TokenBatch]) -> list[str]:
    return [key for batch in batches for key in batch.key]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 10, 64, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_row_comes_once_per_epoch(store: TokenStore, world_size: int, batch_size: int, shuffle: bool) -> None:
    loaders = ranks(store, world_size, batch_size=batch_size, shuffle=shuffle)
    for _ in range(2):
        batches = [list(loader) for loader in loaders]
        assert Counter(key for rank in batches for key in keys_of(rank)) == Counter(store.keys)
        for loader, own in zip(loaders, batches, strict=True):
            assert len(loader) == len(own)
            assert {len(batch) for batch in own[:-1]} <= {batch_size}
        assert max(map(len, batches)) - min(map(len, batches)) <= 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_dropping_the_last_rows_makes_steps_equal(store: TokenStore, world_size: int) -> None:
    loaders = ranks(store, world_size, batch_size=25, remainder="drop")
    batches = [list(loader) for loader in loaders]
    steps = ROWS // (25 * world_size)
    assert [len(own) for own in batches] == [len(loader) for loader in loaders] == [steps] * world_size
    assert {len(batch) for own in batches for batch in own} == {25}
    keys = [key for own in batches for key in keys_of(own)]
    assert len(set(keys)) == len(keys) == steps * 25 * world_size


def test_rows_keep_their_tokens_and_labels(store: TokenStore) -> None:
    row_of = {key: row for row, key in enumerate(store.keys)}
    for batch in TokenLoader(store, batch_size=50, seed=3):
        expected = store.read([row_of[key] for key in batch.key])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch.idx_Bl, expected.idx_Bl, strict=True))
        assert torch.equal(batch.label, expected.label)


def test_unshuffled_is_the_order_of_the_store(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=40, shuffle=False)
    assert keys_of(list(loader)) == keys_of(list(loader)) == list(store.keys)
    first, second = ranks(store, 2, batch_size=40, shuffle=False)
    assert (keys_of(list(first)), keys_of(list(second))) == (store.keys[:165], store.keys[165:])


def test_epochs_differ_and_seeds_repeat(store: TokenStore) -> None:
    loader, same, other = (TokenLoader(store, batch_size=40, seed=seed) for seed in (5, 5, 6))
    epochs = [keys_of(list(loader)) for _ in range(3)]
    assert [keys_of(list(same)) for _ in range(3)] == epochs
    orders = [*epochs, keys_of(list(other)), list(store.keys)]
    assert len({tuple(order) for order in orders}) == 5


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("world_size", "resumed_world"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 4)])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_resumed_epoch_delivers_exactly_the_rest(
    store: TokenStore, world_size: int, resumed_world: int, steps: int, shuffle: bool
) -> None:
    seen: list[str] = []
    states = []
    for loader in ranks(store, world_size, batch_size=13, shuffle=shuffle, seed=2):
        list(loader)  # so that it is the second epoch that is interrupted
        for step, batch in enumerate(loader, start=1):
            seen += batch.key
            if step == steps:
                break
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert all(state == states[0] for state in states)

    rest: list[str] = []
    following: list[str] = []
    for loader in ranks(store, resumed_world, batch_size=9, shuffle=shuffle, seed=2):
        loader.load_state_dict(states[0])
        rest += keys_of(list(loader))
        following += keys_of(list(loader))
    assert Counter(seen + rest) == Counter(store.keys)
    assert Counter(following) == Counter(store.keys)


def test_resumed_ranks_share_what_is_left(store: TokenStore) -> None:
    first = TokenLoader(store, batch_size=13, shuffle=False)
    next(iter(first))
    left: list[str] = []
    for loader in ranks(store, 3, batch_size=10, shuffle=False):
        loader.load_state_dict(first.state_dict())
        assert loader.state_dict()["stages"] == [[1, 13], [3, 0]]
        left += keys_of(list(loader))
    assert left == store.keys[13:]


def test_resuming_at_the_same_size_goes_on_with_the_same_batches(store: TokenStore) -> None:
    whole = [batch.key for batch in TokenLoader(store, batch_size=20, seed=1)]
    loader = TokenLoader(store, batch_size=20, seed=1)
    iterator = iter(loader)
    begun = [next(iterator).key for _ in range(7)]
    resumed = TokenLoader(store, batch_size=20, seed=1)
    resumed.load_state_dict(loader.state_dict())
    assert begun + [batch.key for batch in resumed] == whole
    assert resumed.state_dict() == {**loader.state_dict(), "epoch": 1, "stages": [[1, 0]]}


def test_a_state_taken_after_the_last_batch_goes_on_with_the_next_epoch(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=100, seed=1)
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    resumed = TokenLoader(store, batch_size=100, seed=1)
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []
    assert sorted(keys_of(list(resumed))) == sorted(store.keys)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_interruptions_at_any_world_sizes_lose_and_double_nothing(store: TokenStore, data: st.DataObject) -> None:
    state = TokenLoader(store, seed=9).state_dict()
    seen: list[str] = []
    for _ in range(data.draw(st.integers(1, 4), "interruptions")):
        world_size, batch_size = data.draw(st.integers(1, 4), "world size"), data.draw(st.integers(1, 30), "batch size")
        steps = data.draw(st.integers(1, 4), "steps")
        loaders = ranks(store, world_size, batch_size=batch_size, seed=9)
        for loader in loaders:
            loader.load_state_dict(state)
            for step, batch in enumerate(loader, start=1):
                seen += batch.key
                if step == steps:
                    break
        state = loaders[0].state_dict()
        if state["epoch"]:  # the epoch ended on the way
            assert Counter(seen) == Counter(store.keys)
            return
    loader = TokenLoader(store, seed=9)
    loader.load_state_dict(state)
    assert Counter(seen + keys_of(list(loader))) == Counter(store.keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "the loader's state has seed 4, this loader 3"),
        ({"shuffle": False}, "the loader's state has shuffle False, this loader True"),
        ({"content_digest": "of another store"}, "the loader's state has content_digest 'of another store'"),
    ],
)
def test_a_state_of_another_order_is_refused(store: TokenStore, change: dict[str, object], message: str) -> None:
    loader = TokenLoader(store, batch_size=10, seed=3)
    next(iter(loader))
    before = loader.state_dict()
    with pytest.raises(StoreError, match=message):
        loader.load_state_dict({**before, **change})
    assert loader.state_dict() == before


def test_what_is_no_state_is_refused(store: TokenStore) -> None:
    loader = TokenLoader(store)
    state = loader.state_dict()
    for name in state:
        with pytest.raises(StoreError, match=f"no {name}"):
            loader.load_state_dict({key: value for key, value in state.items() if key != name})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not in 0 .. world_size - 1 = 1"),
        ({"rank": -1}, "rank -1"),
        ({"world_size": 0}, "rank 0"),
        ({"shuffle": "False"}, "shuffle must be True or False, not 'False'"),
        ({"resume": None}, "resume must be True or False, not None"),
    ],
)
def test_senseless_arguments_are_refused(store: TokenStore, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenLoader(store, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [[], [0]])
def test_a_store_of_nothing_gives_no_batches(tmp_path: Path, counts: list[int]) -> None:
    store = TokenStore(store_of_rows(tmp_path, counts))
    for loader in ranks(store, 2):
        assert (len(loader), list(loader), list(loader)) == (0, [], [])


def test_a_store_smaller_than_a_batch(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [2, 1]))
    (batch,) = TokenLoader(store, batch_size=256)
    assert sorted(batch.key) == sorted(store.keys)
    sizes = [[len(batch) for batch in loader] for loader in ranks(store, 4, batch_size=256)]
    assert sizes == [[], [1], [1], [1]]
    assert [len(loader) for loader in ranks(store, 4, batch_size=256)] == [0, 1, 1, 1]
    assert [list(loader) for loader in ranks(store, 4, batch_size=256, remainder="drop")] == [[]] * 4


def test_a_loader_goes_on_with_the_rows_of_before_the_store_grew(tmp_path: Path) -> None:
    birth = make_birth()
    files = begin_store(tmp_path, birth)
    commit_part(files, birth, make_shard(birth, "m", 50))
    finish_store(files, birth, 1)
    loader = TokenLoader(TokenStore(tmp_path), batch_size=20)
    seen = next(iter(loader)).key
    state = loader.state_dict()
    commit_part(files, birth, make_shard(birth, "a", 30))
    finish_store(files, birth, 2)
    with pytest.raises(
        StoreError, match=r"has the store grown\? TokenStore\(path, content_digest=\.\.\.\) reads it as"
    ):
        TokenLoader(TokenStore(tmp_path)).load_state_dict(state)
    before = TokenStore(tmp_path, content_digest=state["content_digest"])
    resumed = TokenLoader(before, batch_size=20)
    resumed.load_state_dict(state)
    rest = [key for batch in resumed for key in batch.key]
    assert sorted(seen + rest) == sorted(before.keys)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_padding_makes_steps_equal_and_batches_full(store: TokenStore, world_size: int) -> None:
    loaders = ranks(store, world_size, batch_size=25, remainder="pad")
    batches = [list(loader) for loader in loaders]
    steps = -(-ROWS // (25 * world_size))
    assert [len(own) for own in batches] == [len(loader) for loader in loaders] == [steps] * world_size
    keys = []
    for batch in (batch for own in batches for batch in own):
        assert batch.mask is not None
        assert len(batch) == len(batch.mask) == 25
        assert batch.tokens.shape == (25, 8)
        keys += [key for key, real in zip(batch.key, batch.mask.tolist(), strict=True) if real]
    assert sorted(keys) == sorted(store.keys)


def test_a_rank_without_rows_is_padded_all_the_way(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [2]))
    masks = [[batch.mask.tolist() for batch in loader] for loader in ranks(store, 3, batch_size=2, remainder="pad")]  # type: ignore[union-attr]
    assert masks == [[[False, False]], [[True, False]], [[True, False]]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_only_some_rows(store: TokenStore, shuffle: bool) -> None:
    some = np.flatnonzero(np.random.default_rng(0).random(ROWS) < 0.3)
    for world_size in (1, 3):
        loaders = ranks(store, world_size, batch_size=20, shuffle=shuffle, rows=some)
        found = [row for loader in loaders for batch in loader for row in batch.row.tolist()]
        assert sorted(found) == some.tolist()
        assert shuffle or found == some.tolist()
    (none,) = ranks(store, 1, rows=[])
    assert (len(none), list(none)) == (0, [])


def test_a_lone_loader_in_a_world_of_ranks_is_warned(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.warns(UserWarning, match="gives every row to every process, .* pass rank and world_size"):
        TokenLoader(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TokenLoader(store, rank=1, world_size=4)


def test_damage_is_met_in_its_turn_and_named(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [40, 40], codec="raw"))
    (file,) = tmp_path.glob("tokens.zarr/parts/part001.*/tokens/c/0/0")
    data = bytearray(file.read_bytes())
    data[77] ^= 16
    file.write_bytes(data)
    with pytest.raises(
        CorruptStore, match=r"part001\.\w+/tokens: .*checksum of chunk 0 .*; delete commits/part001.json"
    ):
        list(TokenLoader(store, batch_size=10))


def test_no_thread_is_left_behind(store: TokenStore) -> None:
    before = threading.active_count()
    for _ in range(5):
        iterator = iter(TokenLoader(store, batch_size=5))
        next(iterator)
        del iterator
    list(TokenLoader(store, batch_size=50))
    gc.collect()
    assert threading.active_count() <= before + 4  # those that read chunks, of the store


def test_labels_and_fields_come_when_asked_for(tmp_path: Path) -> None:
    birth = make_birth(fields=["txt"])
    files = begin_store(tmp_path, birth)
    texts = [None if row % 5 == 0 else f"text {row}".encode() for row in range(40)]
    commit_part(files, birth, make_shard(birth, "m", 40, fields={"txt": texts}))
    finish_store(files, birth)
    for batch in TokenLoader(TokenStore(tmp_path), batch_size=7):
        assert batch.field("txt") == [texts[row] for row in batch.row]
        assert batch.label.tolist() == [row % 7 - 1 for row in batch.row]
        with pytest.raises(StoreError, match="no field 'json'; there is txt"):
            batch.field("json")


ADDRESSES = [
    pytest.param(0xEFFF_8C20_0000, id="48 bits"),
    pytest.param(0xFF_EFFF_8C20_0000, id="56 bits"),
]
"""Where ARM64, and x86-64 with five levels of page tables, may have a process's files."""


def rows_at(base: int, path: Path) -> tuple[int, list[list[int]], list[tuple[int, list[int], int]]]:
    """Base of the range; tokens that are read in reverse; row, tokens and label of each that a loader gives."""
    with pytest.MonkeyPatch.context() as patch:
        contents = range_at(base, patch)
        patch.setattr(Reserved, "gather", lambda self, offsets, row: gather_from(contents, offsets, row))
        store = TokenStore(path)
        read = store.read(slice(None, None, -1)).tokens.tolist()
        given = [
            row
            for batch in TokenLoader(store, batch_size=10)
            for row in zip(batch.row.tolist(), batch.tokens.tolist(), batch.label.tolist(), strict=True)
        ]
        assert space._range is not None
        return space._range.base, read, sorted(given)


def gather_at(base: int, path: Path, how: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        range_at(base, patch)
        store = TokenStore(path)
        faulthandler.disable()
        store.read([1, 50]) if how == "read" else next(iter(TokenLoader(store, batch_size=10)))


@pytest.mark.parametrize("base", ADDRESSES)
def test_rows_are_found_at_addresses_that_this_machine_may_not_have(
    base: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
    path = store_of_rows(tmp_path / "store", [40, 0, 3, 20], codec="raw")
    expected = TokenStore(path).read(slice(None))
    tokens = expected.tokens.tolist()
    rows = list(zip(range(63), tokens, expected.label.tolist(), strict=True))
    assert in_a_fork(rows_at, base, path) == (0, [(base, tokens[::-1], rows)])
    for how in ("read", "load"):  # nothing is there, which is found out by going there
        code, returned = in_a_fork(gather_at, base, path, how)
        assert code in (-signal.SIGSEGV, -signal.SIGBUS) and not returned
