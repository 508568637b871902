"""One committed part: what was written comes back, and damage is never read as zeros."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import all_files, begin_store, finish_store, make_birth, make_shard

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.store import TokenStore
from pipeline.store.arrays import storage
from pipeline.store.arrays.parts import Part
from pipeline.store.cache.parts import PartCache
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.manifest import PartRecord
from pipeline.store.writing.writer import EncodedShard, commit_part

FIELDS: dict[str, list[bytes | None]] = {"txt": [b"one", b"", None, "fünf".encode()] * 5, "json": [None] * 20}


def written(folder: Path, birth: Birth, shard: EncodedShard) -> Part:
    commit = commit_part(begin_store(folder, birth), birth, shard)
    return Part(LocalFiles(folder), birth, PartRecord.of(commit, since=0))


@pytest.mark.parametrize("codec", ["lz4", "raw"])
@pytest.mark.parametrize("vocab_size", [256, 257, 65536, 65537])
@pytest.mark.parametrize("rows", [0, 1, 20])
def test_a_part_comes_back(tmp_path: Path, rows: int, vocab_size: int, codec: str) -> None:
    birth = make_birth(vocab_size=vocab_size, codec=codec, fields=["json", "txt"])
    shard = make_shard(birth, "p", rows, fields={name: values[:rows] for name, values in FIELDS.items()})
    part = written(tmp_path, birth, shard)
    assert part.tokens().dtype == {256: "u1", 257: "u2", 65536: "u2", 65537: "u4"}[vocab_size]
    assert np.array_equal(part.tokens(), shard.tokens)
    assert part.keys == shard.keys
    assert part.labels.tolist() == shard.labels
    assert {name: part.field(name) for name in FIELDS} == shard.fields
    if rows:
        assert part.tokens().max() == vocab_size - 1


def test_ranges_of_rows_are_those_rows(tmp_path: Path) -> None:
    birth = make_birth(block_lengths=[300, 724])  # 512 rows of 1,024 tokens make an inner chunk
    shard = make_shard(birth, "p", 1500)
    part = written(tmp_path, birth, shard)
    for rows in (slice(0, 0), slice(0, 1), slice(499, 501), slice(700, 1500), slice(1499, 1500)):
        assert np.array_equal(part.tokens(rows), shard.tokens[rows])


DAMAGES = {
    "deleted": lambda path, data: path.unlink(),
    "empty": lambda path, data: path.write_bytes(b""),
    "cut by one": lambda path, data: path.write_bytes(data[:-1]),
    "cut in half": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "zeros": lambda path, data: path.write_bytes(bytes(len(data))),
}


@pytest.mark.parametrize("codec", ["lz4", "raw"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("path", ["tokens", "label", "key/data", "key/offsets", "fields/txt/data"])
def test_damaged_chunks_are_named_and_never_read_as_zeros(tmp_path: Path, path: str, damage: str, codec: str) -> None:
    birth = make_birth(codec=codec, fields=["txt"])
    part = written(tmp_path, birth, make_shard(birth, "p", 20, fields={"txt": FIELDS["txt"]}))
    (file,) = (file for file in tmp_path.glob(f"tokens.zarr/parts/p.*/{path}/c/**/*") if file.is_file())
    DAMAGES[damage](file, file.read_bytes())
    for rows in (slice(None), slice(3, 4)):
        with pytest.raises(CorruptStore, match=rf"tokens\.zarr/parts/p\.\w+/{path}: .*run vqtok tokenize again"):
            part.read(path, rows)


def test_a_chunk_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    birth = make_birth(block_lengths=[2, 3])
    part = written(tmp_path, birth, make_shard(birth, "p", 4))
    (file,) = tmp_path.glob("tokens.zarr/parts/p.*/tokens/c/0/0")
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        for rows in (slice(None), slice(1, 2)):
            with pytest.raises(CorruptStore, match="tokens: "):
                part.tokens(rows)


@pytest.mark.parametrize("codec", ["lz4", "raw"])
def test_every_flipped_bit_of_a_chunk_file_is_noticed(tmp_path: Path, codec: str) -> None:
    birth = make_birth(block_lengths=[2, 3], codec=codec)
    part = written(tmp_path, birth, make_shard(birth, "p", 4))
    (file,) = tmp_path.glob("tokens.zarr/parts/p.*/tokens/c/0/0")
    data = file.read_bytes()
    assert part.tokens().any()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(CorruptStore, match="tokens: cannot be read"):
            part.tokens()
    file.write_bytes(data)
    assert part.tokens().any()


@pytest.mark.parametrize("codec", ["lz4", "raw"])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("path", ["tokens", "label", "key/data", "key/offsets"])
def test_a_sound_file_of_another_part_is_refused(
    tmp_path: Path, path: str, chunks: int, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size, with all its checksums right, and with the crc32c that every such file has."""
    birth = make_birth(codec="raw" if codec == "raw" else "lz4", vocab_size=256)
    monkeypatch.setattr(storage, "CHUNK_BYTES", 8 * 20 // chunks)
    files = begin_store(tmp_path, birth)
    shards = [make_shard(birth, part, 20) for part in "pq"]
    shards[1] = replace(shards[1], labels=shards[0].labels[::-1], keys=[key[::-1] for key in shards[0].keys])
    commits = [commit_part(files, birth, shard) for shard in shards]
    finish_store(files, birth)
    mine, other = (next(tmp_path.glob(f"tokens.zarr/parts/{part}.*/{path}/c")) for part in "pq")
    shutil.copytree(other, mine, dirs_exist_ok=True)
    expected = r"is not the one that was committed|cannot be read"
    if path == "key/offsets":
        assert all_files(mine) == all_files(other)  # the keys are equally long
    else:
        for opened in (Part(files, birth, PartRecord.of(commits[0], since=0)), TokenStore(str(tmp_path))._parts[0]):
            with pytest.raises(CorruptStore, match=expected):
                opened.read(path)


@pytest.mark.parametrize("codec", ["lz4", "raw"])
@pytest.mark.parametrize("position", [30, -30, -3])  # in a chunk, in the index, in its checksum; or in metadata
def test_a_damaged_copy_in_a_cache_is_fetched_again(tmp_path: Path, codec: str, position: int) -> None:
    birth = make_birth(codec=codec)
    shard = make_shard(birth, "p", 20)
    written(tmp_path / "store", birth, shard)
    finish_store(LocalFiles(tmp_path / "store"), birth)
    cache = PartCache(tmp_path / "cache", 1 << 20)

    def read() -> list[object]:
        batch = TokenStore(str(tmp_path / "store"), cache=cache).read(range(20))
        return [batch.tokens.tolist(), batch.label.tolist(), batch.key]

    expected = [shard.tokens.tolist(), shard.labels, shard.keys]
    assert read() == expected
    for copy in sorted((tmp_path / "cache").glob("*.file")):
        sound = copy.read_bytes()
        damaged = bytearray(sound)
        damaged[position] ^= 1
        copy.write_bytes(damaged)
        assert read() == expected
        assert read() == expected
        if sound[:1] != b"{":  # some bits of metadata say nothing of the rows
            assert copy.read_bytes() == sound


def test_rows_of_a_part_whose_offsets_lie_are_refused(tmp_path: Path) -> None:
    """In a store made before there were digests, where the length of the text is in no record."""
    birth = make_birth(features=(), codec="raw")
    part = written(tmp_path, birth, make_shard(birth, "p", 20))
    (metadata,) = tmp_path.glob("tokens.zarr/parts/p.*/key/data/zarr.json")
    size = part.array("key/data").shape[0]
    metadata.write_text(metadata.read_text().replace(f"{size}", f"{size - 3}", 1))
    with pytest.raises(CorruptStore, match=r"key/data: cannot be read"):
        part.texts("key")


def test_missing_or_damaged_metadata_is_named(tmp_path: Path) -> None:
    birth = make_birth()
    part = written(tmp_path, birth, make_shard(birth, "p", 4))
    (file,) = tmp_path.glob("tokens.zarr/parts/p.*/label/zarr.json")
    file.write_text("{")
    with pytest.raises(CorruptStore, match=r"parts/p\.\w+/label: cannot be read"):
        part.read("label")
    file.unlink()
    with pytest.raises(CorruptStore, match=r"parts/p\.\w+/label: missing"):
        part.read("label")


def test_an_array_without_rows_needs_no_chunk_file(tmp_path: Path) -> None:
    birth = make_birth(fields=["txt"])
    part = written(tmp_path, birth, make_shard(birth, "p", 0, fields={"txt": []}))
    assert part.tokens().shape == (0, 8)
    assert part.field("txt") == part.keys == []
    chunks = {path.parents[2].name for path in tmp_path.glob("tokens.zarr/parts/p.*/**/c/*") if path.is_file()}
    assert chunks == {"key", "txt"}  # the offsets alone: they always hold a zero
