"""`TokenStore.keys`: a sequence that is read on demand and searched as bytes."""

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_store import begin_store, finish_store, make_birth, make_shard
from hypothesis import given
from hypothesis import strategies as st
from support import sampled

from pipeline.errors import CorruptStore
from pipeline.store import TokenStore
from pipeline.store import keys as keys_module
from pipeline.store.arrays.row_texts import RowTexts
from pipeline.store.keys import Keys
from pipeline.store.writing.writer import commit_part

pytest_plugins = ["fixtures_store"]

MANY = [f"{row % 65_000:09d}/größe"[: 10 + row % 3 % 2 * 6] for row in range(70_000)]
"""More than a block of rows and a chunk of bytes, of two lengths; the first 5,000 come again at the end."""

PARTS: dict[str, list[str]] = {
    "a": ["ab", "abc", "a", "ca", "", "bca", "bc", "aa", "a", "猫", "größer"],  # repeats, and keys within others
    "b": [],
    "c": ["", "", ""],
    "d": MANY,
    "e": ["b", "abc", "ü", "größer", "a" * 700_000, "猫" * 300, "b" + "a" * 699_999, "a"],  # keys of more than a chunk
}
KEYS = [key for keys in PARTS.values() for key in keys]


def store_of_keys(folder: Path, parts: dict[str, list[str]], partial: bool = False, **options: Any) -> TokenStore:
    """A store of parts with these keys."""
    birth = make_birth(**options)
    files = begin_store(folder, birth)
    for part, keys in parts.items():
        shard = make_shard(birth, part, len(keys))
        shard.keys[:] = keys
        commit_part(files, birth, shard)
    if not partial:
        finish_store(files, birth)
    return TokenStore(folder, partial=partial)


@pytest.fixture(scope="module", params=sampled("lz4", "raw"))
def keys(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Those of a store of PARTS."""
    return store_of_keys(tmp_path_factory.mktemp("keys"), PARTS, codec=request.param).keys


def test_they_read_as_a_list(keys: Keys) -> None:
    assert isinstance(keys, Sequence)
    assert len(keys) == len(KEYS)
    assert list(keys) == KEYS
    assert list(reversed(keys)) == KEYS[::-1]
    for row in (0, 4, 10, 11, 13, 14, 65_549, 65_550, 70_013, 70_014, len(KEYS) - 1):
        assert keys[row] == keys[row - len(KEYS)] == KEYS[row]
    for row in (len(KEYS), -len(KEYS) - 1):
        with pytest.raises(IndexError):
            keys[row]


@given(
    st.none() | st.integers(-len(KEYS) - 5, len(KEYS) + 5),
    st.none() | st.integers(-len(KEYS) - 5, len(KEYS) + 5),
    st.none() | st.sampled_from([1, -1, 2, -3, 40_000, -40_000]),
)
def test_slices_are_those_of_a_list(keys: Keys, start: int | None, stop: int | None, step: int | None) -> None:
    assert keys[start:stop:step] == KEYS[start:stop:step]
    near = slice(start, (start or 0) + 40, step)
    assert keys[near] == KEYS[near]


WANTED = [*dict.fromkeys([*PARTS["a"], *PARTS["e"]]), *(MANY[row] for row in (0, 4_999, 5_000, 29_126, 32_768, 64_999))]
"""Chunks of 512 KiB and blocks of 65,536 rows end among MANY."""


def test_runs_of_rows_are_read_as_runs(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across parts too; rows in another order, or with gaps, one by one."""
    scattered: list[int] = []
    read = RowTexts.read
    monkeypatch.setattr(keys_module, "_FEW_ROWS", 2)
    monkeypatch.setattr(RowTexts, "read", lambda self, rows: (scattered.append(len(rows)), read(self, rows))[1])
    for rows in (np.arange(3, 66_000), np.array([1, 2, 4]), np.array([3, 2, 1]), np.array([1])):
        assert keys.read(rows) == [KEYS[row] for row in rows]
    assert scattered == [3, 3, 1]


@pytest.mark.parametrize("key", WANTED, ids=lambda key: key[:10])
def test_every_row_is_found(keys: Keys, key: str) -> None:
    expected = [row for row, other in enumerate(KEYS) if other == key]
    found = keys.find(key)
    assert (str(found.dtype), found.tolist()) == ("int64", expected)
    assert (keys.count(key), key in keys, keys.index(key)) == (len(expected), True, expected[0])


def test_keys_that_end_and_begin_anywhere_in_a_chunk_are_found(tmp_path: Path) -> None:
    """Chunks of 512 KiB, cut at another byte of a key for other lengths of the first one."""
    for shift in range(0, 12, 2):
        rows = ["x" * shift, *(f"{row:010d}" for row in range(53_000))]
        found = store_of_keys(tmp_path / str(shift), {"p": rows}).keys
        middle = (10 * 53_000 + shift) // 2 // 10
        assert [found.find(rows[row]).tolist() for row in range(middle - 2, middle + 3)] == [
            [row] for row in range(middle - 2, middle + 3)
        ]


@pytest.mark.parametrize(
    "key", ["cb", "0", "000000000/gr", "größ", "a" * 699_999, "x" * 2_000_000, "\udcff", "猫\udcff"]
)
def test_what_no_row_has_is_not_found(keys: Keys, key: str) -> None:
    assert (keys.find(key).tolist(), str(keys.find(key).dtype), keys.count(key), key in keys) == ([], "int64", 0, False)
    with pytest.raises(ValueError, match="no row has the key"):
        keys.index(key)


def test_the_first_row_within_bounds(keys: Keys) -> None:
    last = len(KEYS) - 1
    assert [keys.index("a", *bounds) for bounds in [(2,), (3,), (9,), (-1,), (0, 3), (-len(KEYS), -1)]] == [
        KEYS.index("a", *bounds) for bounds in [(2,), (3,), (9,), (-1,), (0, 3), (-len(KEYS), -1)]
    ]
    for bounds in [(0, 2), (9, last), (5, 3)]:
        with pytest.raises(ValueError):
            keys.index("a", *bounds)


@pytest.mark.parametrize("key", [None, 3, b"a", ["a"]])
def test_what_is_no_str_is_no_key(keys: Keys, key: Any) -> None:
    assert (key in keys, keys.count(key)) == (False, 0)
    with pytest.raises(ValueError):
        keys.index(key)
    with pytest.raises(TypeError, match="a key is a str"):
        keys.find(key)


def test_they_equal_themselves_and_no_list(keys: Keys, tmp_path: Path) -> None:
    store = store_of_keys(tmp_path, {"p": ["x"]})
    assert store.keys is store.keys
    assert store.keys != ["x"]
    assert (repr(store.keys), repr(keys)) == ("<1 keys of 1 parts>", "<70,022 keys of 5 parts>")


def test_nothing_is_read_before_it_is_asked_for_nor_kept_mapped(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path, {"p": MANY, "q": ["x"]})
    assert store.keys.find("x").tolist() == [len(MANY)]
    assert [key for key in store.keys if key == "x"] == ["x"]
    assert f"{tmp_path}" not in Path("/proc/self/maps").read_text()
    for data in tmp_path.glob("tokens.zarr/parts/*/key/*/c/0"):
        data.unlink()
    assert len(TokenStore(tmp_path).keys) == len(MANY) + 1


def test_a_damaged_part_is_no_part_without_the_key(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path, {"p": ["a"], "q": ["b"], "r": ["c"]})
    (data,) = tmp_path.glob("tokens.zarr/parts/q.*/key/data/c/0")
    data.write_bytes(data.read_bytes()[::-1])
    assert store.keys.index("a") == 0
    for key in ("c", "nobody"):
        with pytest.raises(CorruptStore, match=r"parts/q\..*/key/data.* delete commits/q\.json"):
            store.keys.find(key)


def test_a_fork_has_the_same_keys(tmp_path: Path) -> None:
    keys = store_of_keys(tmp_path / "store", {"b": ["x", "y"]}).keys
    assert keys[0] == "x"
    if not (child := os.fork()):
        os._exit(0 if keys.find("y").tolist() == [1] and keys[0] == "x" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_pickle_gives_the_rows_that_there_were(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"b": ["x", "y"]}, partial=True)
    pickled = pickle.dumps(store.keys)
    assert len(pickled) < 4096
    birth = make_birth()
    commit_part(begin_store(tmp_path / "store", birth), birth, make_shard(birth, "a", 1))
    assert list(TokenStore(tmp_path / "store", partial=True).keys) == ["a/0-ü", "x", "y"]
    assert pickle.loads(pickled) is store.keys
    del store
    assert list(pickle.loads(pickled)) == ["x", "y"]
