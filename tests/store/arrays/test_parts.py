"""One committed part: what was written comes back, and damage is never read as zeros."""

from pathlib import Path

import numpy as np
import pytest
from fixtures_store import begin_store, make_birth, make_shard

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.store.arrays.parts import Part
from pipeline.store.schema.birth import Birth
from pipeline.store.writing.writer import EncodedShard, commit_part

FIELDS: dict[str, list[bytes | None]] = {"txt": [b"one", b"", None, "fünf".encode()] * 5, "json": [None] * 20}


def written(folder: Path, birth: Birth, shard: EncodedShard) -> Part:
    commit = commit_part(begin_store(folder, birth), birth, shard)
    return Part(LocalFiles(folder), birth, commit.part, commit.attempt, commit.written)


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
