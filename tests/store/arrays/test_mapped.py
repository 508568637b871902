"""Arrays read from mapped files are those that zarr-python reads, and damage is never read as numbers."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from fixtures_store import begin_store, cold_python, make_birth, make_shard
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples, sampled
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from pipeline.files import LocalFiles
from pipeline.store.arrays import storage as arrays
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.mapped import MappedArray, RangedArray
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.memory.memory_map import map_file
from pipeline.store.schema.manifest import PartRecord
from pipeline.store.writing.writer import commit_part

CODECS = {
    "raw": [],
    "lz4": [BloscCodec(cname="lz4", shuffle="bitshuffle")],
    "zstd": [ZstdCodec(level=3)],
}


def write_array(folder: Path, values: np.ndarray, chunk_rows: int, codec: str) -> Path:
    """One array as format 1 has it, at `folder`/a."""
    rest = values.shape[1:]
    outer = -(-max(len(values), 1) // chunk_rows) * chunk_rows
    array = zarr.create_array(
        LocalStore(folder),
        name="a",
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk_rows, *rest),
        shards=(outer, *rest),
        compressors=[*CODECS[codec], Crc32cCodec()],
        filters=None,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    if len(values):
        array[...] = values
    return folder / "a"


def format_of(folder: Path) -> ChunkFormat:
    """The format of an array whose records say what zarr-python says."""
    array = zarr.open_array(folder, mode="r")
    compressor = {"BloscCodec": "blosc", "ZstdCodec": "zstd"}.get(type(array.compressors[0]).__name__)
    stored = StoredArray(array.shape[0], array.shape[1:], array.dtype, compressor)  # type: ignore[arg-type]
    return ChunkFormat.of((folder / "zarr.json").read_bytes(), stored)


def chunk_path(folder: Path, chunk_format: ChunkFormat) -> Path:
    return folder / "/".join(["c", *("0" for _ in chunk_format.shape)])


def map_array(folder: Path, check_always: bool = False, chunk_format: ChunkFormat | None = None) -> MappedArray:
    chunk_format = chunk_format or format_of(folder)
    with chunk_path(folder, chunk_format).open("rb") as opened:
        return MappedArray(chunk_format, map_file(opened), check_always)


def range_array(folder: Path, whole_bytes: int = 0, chunk_format: ChunkFormat | None = None) -> RangedArray:
    chunk_format = chunk_format or format_of(folder)
    path = chunk_path(folder, chunk_format).relative_to(folder)
    return RangedArray(chunk_format, LocalFiles(folder), path.as_posix(), whole_bytes=whole_bytes)


def read_whole(folder: Path, chunk_format: ChunkFormat | None = None) -> RangedArray:
    return range_array(folder, whole_bytes=1 << 20, chunk_format=chunk_format)


@settings(deadline=None, max_examples=examples(60))
@given(
    codec=st.sampled_from(sorted(CODECS)),
    dtype=st.sampled_from(["u1", "u2", "u4", "u8", "i8"]),
    rows=st.integers(1, 60),
    width=st.integers(0, 9),
    chunk_rows=st.integers(1, 25),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_range_is_what_zarr_reads(
    tmp_path_factory: pytest.TempPathFactory,
    codec: str,
    dtype: str,
    rows: int,
    width: int,
    chunk_rows: int,
    seed: int,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("array")
    shape = (rows, width) if width else (rows,)
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    write_array(folder, values, chunk_rows, codec)
    mapped, plain = map_array(folder / "a"), zarr.open_array(folder / "a", mode="r")
    ranged, whole = range_array(folder / "a"), read_whole(folder / "a")
    assert (mapped.shape, mapped.dtype) == (plain.shape, plain.dtype) == (shape, np.dtype(dtype))
    for _ in range(4):
        start = data.draw(st.integers(0, rows))
        stop = data.draw(st.integers(start, rows))
        expected = np.asarray(plain[start:stop])
        assert np.array_equal(expected, values[start:stop])
        for array in (mapped, ranged, whole):
            read = array.read(start, stop)
            assert read.dtype == expected.dtype
            assert np.array_equal(read, expected)


def test_chunks_that_are_stored_as_they_are_are_not_copied(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(16, 4)
    array = map_array(write_array(tmp_path, values, 4, "raw"))
    assert array.mapped
    read = array.read(4, 8)
    assert not read.flags.owndata
    assert not read.flags.writeable
    assert np.shares_memory(array.read(5, 6), read)
    del array
    assert np.array_equal(read, values[4:8])  # the mapping lives as long as anything that looks at it


def test_a_mapping_holds_no_file_open(tmp_path: Path) -> None:
    path = write_array(tmp_path, np.arange(10, dtype=np.uint8), 5, "raw")
    before = len(list(Path("/proc/self/fd").iterdir()))
    mapped = [map_array(path) for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for file in path.rglob("c/*"):
        file.unlink()
    assert all(array.read(0, 10).tolist() == list(range(10)) for array in mapped)


def test_mappings_end_with_their_arrays(tmp_path: Path) -> None:
    path = write_array(tmp_path, np.arange(10, dtype=np.uint8), 5, "raw")

    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count(str(path))

    array = map_array(path)
    view = array.read(2, 3)
    assert mappings() == 1
    del array
    assert mappings() == 1
    del view
    assert mappings() == 0


@pytest.mark.parametrize("codec", sampled(*sorted(CODECS)))
def test_every_flipped_bit_is_met(tmp_path: Path, codec: str) -> None:
    path = write_array(tmp_path, np.arange(12, dtype=np.uint16).reshape(6, 2), 2, codec)
    file = path / "c/0/0"
    data, chunk_format = file.read_bytes(), format_of(path)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        for open_array in (map_array, range_array, read_whole):
            with pytest.raises(Damage):
                open_array(path, chunk_format=chunk_format).read(0, 6)


def test_a_chunk_that_is_missing_from_its_file_is_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a"
    array = zarr.create_array(
        LocalStore(tmp_path), name="a", shape=(8,), dtype="u2", chunks=(2,), shards=(8,),
        compressors=[Crc32cCodec()], filters=None,
    )  # fmt: skip
    array[0:4] = np.arange(1, 5, dtype=np.uint16)  # the chunks of rows 4 to 8 are all fill value and not written
    assert zarr.open_array(LocalStore(tmp_path), path="a")[...].tolist() == [1, 2, 3, 4, 0, 0, 0, 0]
    with pytest.raises(Damage, match="chunk 2 is missing"):
        map_array(path)


def test_checksums_are_compared_once_or_always(tmp_path: Path) -> None:
    path = write_array(tmp_path, np.arange(8, dtype=np.uint16), 4, "raw")
    once, always = map_array(path), map_array(path, check_always=True)
    assert once.read(0, 8).tolist() == always.read(0, 8).tolist() == list(range(8))
    with (path / "c/0").open("r+b") as file:  # the mapped page changes too
        file.write(b"\xff")
    assert once.read(0, 1).tolist() == [255]
    with pytest.raises(Damage, match="checksum of chunk 0"):
        always.read(0, 1)
    assert always.read(4, 8).tolist() == [4, 5, 6, 7]


def test_parts_written_in_other_chunks_than_the_rule_s_are_read_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.store.arrays.parts import Part
    from pipeline.store.arrays.row_array import RowArray

    birth = make_birth(codec="raw")
    files, shard = begin_store(tmp_path, birth), make_shard(birth, "p", 100)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 8 * 7)
    commit = commit_part(files, birth, shard)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 8 * 10)
    rows = RowArray([Part(files, birth, PartRecord.of(commit, since=0))], "tokens", "uint8", (8,))
    assert np.diff(rows.chunk_starts).tolist() == [10] * 10
    wanted = np.random.default_rng(0).integers(0, 100, 500)
    for _ in range(2):
        assert np.array_equal(rows.gather(rows.locate(wanted)), shard.tokens[wanted])


def test_a_file_cut_under_a_reader_ends_the_process_by_a_signal(tmp_path: Path) -> None:
    """What the documentation says: no wrong tokens, but no exception either."""
    path = write_array(tmp_path, np.zeros((64, 1024), np.uint16), 64, "raw")
    code = (
        "import sys, os, numpy; from pathlib import Path; from pipeline.store.arrays.mapped import *; "
        "from pipeline.store.arrays.stored_array import StoredArray; "
        "from pipeline.store.memory.memory_map import map_file; p = Path(sys.argv[1]); "
        "stored = StoredArray(64, (1024,), numpy.dtype('u2'), None); "
        "a = MappedArray(ChunkFormat.of((p / 'zarr.json').read_bytes(), stored), map_file((p / 'c/0/0').open('rb'))); "
        "os.truncate(p / 'c/0/0', 0); a.read(0, 64).sum()"
    )
    assert cold_python(code, path).status == -7
