"""Rows of many parts gathered in one call."""

import gc
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import begin_store, make_birth, make_shard
from hypothesis import given, settings
from hypothesis import strategies as st
from support import sampled

from pipeline.errors import CorruptStore, StoreError
from pipeline.files import LocalFiles
from pipeline.store.arrays import chunks
from pipeline.store.arrays import storage as arrays
from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.schema.manifest import PartRecord
from pipeline.store.writing.writer import commit_part

COUNTS = [5, 0, 40, 1, 23, 100]
ROWS = sum(COUNTS)


@pytest.fixture(scope="module", params=["raw", "lz4"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Part]]:
    """Parts in chunks of at most ten rows of 8 tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 80)
        yield make_parts(tmp_path_factory.mktemp("rows"), request.param, COUNTS)


def make_parts(folder: Path, codec: str, counts: list[int]) -> list[Part]:
    birth = make_birth(codec=codec)
    files = begin_store(folder, birth)
    shards = [make_shard(birth, f"p{number:03d}", rows) for number, rows in enumerate(counts)]
    commits = [commit_part(files, birth, shard) for shard in shards]
    return [Part(files, birth, PartRecord.of(commit, since=0)) for commit in commits]


def tokens_of(parts: list[Part]) -> np.ndarray:
    return np.concatenate([part.tokens() for part in parts])


def row_array_of(parts: list[Part], **options: object) -> RowArray:
    return RowArray(parts, "tokens", "uint8", (8,), **options)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.integers(0, ROWS - 1), max_size=300), st.sampled_from([0, 100, 1 << 20]), st.booleans())
def test_any_rows_in_any_order(parts: list[Part], wanted: list[int], cache_bytes: int, check_always: bool) -> None:
    rows = row_array_of(parts, cache_bytes=cache_bytes, check_always=check_always)
    expected = tokens_of(parts)
    numbers = np.asarray(wanted, np.int64)
    for _ in range(2):
        located = rows.locate(numbers)
        assert np.array_equal(rows.gather(located), expected[numbers])
        assert np.array_equal(rows.gather(located[::-1]), expected[numbers[::-1]])
        assert np.array_equal(rows.gather(located[1:] + located[:1]), expected[np.roll(numbers, -1)])


def test_runs_are_the_rows_they_name(parts: list[Part]) -> None:
    rows, expected = row_array_of(parts), tokens_of(parts)
    starts, lengths = np.array([46, 0, 5, 152]), np.array([1, 5, 3, 7])
    wanted = np.array([46, *range(5), 5, 6, 7, *range(152, 159)])
    for _ in range(2):
        begun = [rows.begin_runs(starts, lengths) for _ in range(3)]
        rows._chunks._begin()  # whatever is forgotten meanwhile
        for located in begun:
            assert located().rows.tolist() == wanted.tolist()
            assert np.array_equal(rows.gather(located()), expected[wanted])
    nothing = np.empty(0, np.int64)
    assert len(rows.begin_runs(nothing, nothing)()) == 0


def test_chunks_never_cross_parts(parts: list[Part]) -> None:
    starts = row_array_of(parts).chunk_starts
    assert set(np.cumsum([0, *COUNTS]).tolist()) <= set(starts.tolist())
    assert np.diff(starts).max() <= 10
    assert row_array_of(parts[1:2]).chunk_starts.tolist() == row_array_of([]).chunk_starts.tolist() == [0]


def test_located_rows_outlive_everything_else(parts: list[Part]) -> None:
    rows = row_array_of(parts, cache_bytes=0)
    located = rows.locate(np.arange(ROWS))
    expected = tokens_of(parts)
    rows._chunks._begin()
    gc.collect()
    junk = [np.full(80, 255, np.uint8) for _ in range(5000)]  # would take the place of what is freed
    assert np.array_equal(rows.gather(located), expected)
    assert len(junk) == 5000


@pytest.mark.parametrize("rounds", sampled(15, 150))
@pytest.mark.parametrize("option", [{}, {"keep_open": False}, {"check_always": True}, {"cache_bytes": 200}], ids=str)
def test_threads_share_it(
    parts: list[Part], option: dict[str, object], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_MOST_MAPPED", 2)
    rows, expected = row_array_of(parts, **option), tokens_of(parts)
    wrong: list[int] = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(rounds):
            wanted = random.integers(0, ROWS, 30)
            if not np.array_equal(rows.gather(rows.locate(wanted)), expected[wanted]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fork_reads_on_while_its_parent_s_lock_is_held(parts: list[Part]) -> None:
    rows, expected = row_array_of(parts), tokens_of(parts)
    wanted = np.arange(0, ROWS, 3)
    rows.locate(wanted)  # with its pool of threads, which no fork has
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def read() -> None:
        sender.send(rows.gather(rows.locate(wanted[::-1])))

    with rows._chunks._lock:
        child = context.Process(target=read)
        child.start()
    assert receiver.poll(30), "it hangs"
    assert np.array_equal(receiver.recv(), expected[wanted[::-1]])
    child.join()


def test_no_more_parts_are_mapped_than_may_be(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MOST_MAPPED", 2)
    rows, expected = row_array_of(parts), tokens_of(parts)
    for row in range(0, ROWS, 7):
        assert np.array_equal(rows.gather(rows.locate(np.array([row]))), expected[[row]])
        assert len(rows._chunks._open.arrays) <= 2


def test_decoded_chunks_are_kept_within_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 80)
    rows = row_array_of(make_parts(tmp_path, "lz4", [200]), cache_bytes=400)
    for first in range(0, 200, 10):
        rows.locate(np.arange(first, first + 10))
        assert rows._chunks._decoded.currsize <= 400
    assert rows._chunks._decoded.currsize == 400


@pytest.mark.parametrize("codec", ["raw", "lz4"])
def test_damage_names_part_chunk_and_remedy(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 80)
    rows = row_array_of(make_parts(tmp_path, codec, [5, 40]))
    (file,) = tmp_path.glob("tokens.zarr/parts/p001.*/tokens/c/0/0")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)
    assert len(rows.locate(np.arange(5))) == 5
    with pytest.raises(
        CorruptStore, match=r"parts/p001\.\w+/tokens: .* chunk 1 .*; delete commits/p001.json and manifest.json, then"
    ):
        rows.locate(np.arange(45))


def test_a_file_that_cannot_be_had_now_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = row_array_of(make_parts(tmp_path, "raw", [5]))

    def fail(files: LocalFiles, path: str) -> None:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(LocalFiles, "open", fail)
    with pytest.raises(StoreError, match="Input/output error") as caught:
        rows.locate(np.arange(5))
    assert not isinstance(caught.value, CorruptStore)
