"""How arrays are cut into chunks and compressed, and that they come back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import LocalStore

from pipeline.store.arrays.storage import (
    CHUNK_BYTES,
    arrays_of_part,
    chunk_rows,
    create_array,
    pack_texts,
)

KIB = 1024


@pytest.mark.parametrize(
    ("rows", "row_bytes", "expected"),
    [
        (0, 256, 1),  # a chunk shape must be positive, even where no chunk is written
        (1, 256, 1),
        (100, 256, 100),  # fits one chunk
        (2048, 256, 2048),  # fills one chunk to the byte
        (2049, 256, 1025),  # 2048 + 1 would be lopsided: 1025 + 1024
        (4097, 256, 1366),  # three chunks: 1366 + 1366 + 1365
        (10, 512 * KIB, 1),
        (10, 513 * KIB, 1),  # a row larger than a chunk stays whole
        (5, 0, 5),  # rows of nothing
    ],
)
def test_chunks_are_clamped_and_balanced(rows: int, row_bytes: int, expected: int) -> None:
    assert chunk_rows(rows, row_bytes) == expected


@given(st.integers(1, 10**7), st.integers(1, 10**6))
def test_no_chunk_is_too_large_or_much_shorter_than_another(rows: int, row_bytes: int) -> None:
    inner = chunk_rows(rows, row_bytes)
    assert 1 <= inner <= rows
    assert inner == 1 or inner * row_bytes <= CHUNK_BYTES
    chunks = -(-rows // inner)
    assert chunks == -(-rows // max(CHUNK_BYTES // row_bytes, 1)) or inner == 1
    assert 0 <= inner * chunks - rows < chunks


def test_texts_are_packed_and_unpacked() -> None:
    texts = [b"", b"one", "zwölf".encode(), b"", bytes(range(256))]
    packed = pack_texts(texts)
    assert packed.offsets.dtype == np.uint64
    assert len(packed) == 5
    assert [packed[index] for index in range(5)] == texts
    nothing = pack_texts([])
    assert (len(nothing), nothing.data.dtype, nothing.offsets.tolist()) == (0, np.uint8, [0])


def test_an_empty_field_is_not_a_missing_one() -> None:
    arrays = arrays_of_part(np.zeros((3, 2), np.uint8), ["a", "b", "c"], [1, -1, 3], {"txt": [b"x", b"", None]})
    assert arrays["fields/txt/present"].tolist() == [1, 1, 0]
    assert arrays["fields/txt/offsets"].tolist() == [0, 1, 1, 1]
    assert sorted(arrays) == [
        *("fields/txt/data", "fields/txt/offsets", "fields/txt/present"),
        *("key/data", "key/offsets", "label", "tokens"),
    ]


CASES: dict[str, tuple[str, np.ndarray]] = {
    "one row": ("tokens", np.array([[1, 2, 3]], np.uint8)),
    "many rows": ("tokens", np.arange(3000 * 130, dtype=np.uint32).reshape(3000, 130)),
    "labels": ("label", np.arange(-5, 5)),
    "text": ("key/data", np.frombuffer(b"some keys" * 1000, np.uint8)),
    "offsets": ("key/offsets", np.arange(9, dtype=np.uint64)),
    "codebook": ("codebook", np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)),
    "no rows": ("tokens", np.empty((0, 7), np.uint16)),
    "no text": ("key/data", np.empty(0, np.uint8)),
}


@pytest.mark.parametrize("codec", ["lz4", "raw"])
@pytest.mark.parametrize("case", CASES)
def test_an_array_comes_back_from_one_zarr_shard_with_checked_chunks(tmp_path: Path, case: str, codec: str) -> None:
    path, array = CASES[case]
    create_array(zarr.create_group(LocalStore(tmp_path)), path, array, codec)

    read = zarr.open_array(LocalStore(tmp_path), path=path, mode="r")
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert np.array_equal(np.asarray(read[...]), array)

    chunk_files = [file for file in (tmp_path / path / "c").rglob("*") if file.is_file()]
    assert len(chunk_files) == (1 if len(array) else 0)
    assert inner_codecs(tmp_path / path) == expected_codecs(path, codec)


def test_zeros_are_written_and_not_left_out(tmp_path: Path) -> None:
    """A missing chunk means damage, so a chunk of nothing but the fill value must be there."""
    create_array(zarr.create_group(LocalStore(tmp_path)), "tokens", np.zeros((5000, 300), np.uint8), "lz4")
    shard = tmp_path / "tokens" / "c" / "0" / "0"
    inner = json.loads((tmp_path / "tokens" / "zarr.json").read_text())["codecs"][0]["configuration"]["chunk_shape"]
    chunks = -(-5000 // inner[0])
    assert chunks == 3
    index = np.frombuffer(shard.read_bytes()[-(16 * chunks + 4) : -4], "<u8").reshape(chunks, 2)
    assert (index[:, 1] > 0).all()
    assert (index != 2**64 - 1).all()


def inner_codecs(folder: Path) -> list[Any]:
    """Names of the codecs of an inner chunk, with the compressor's details."""
    (sharding,) = json.loads((folder / "zarr.json").read_text())["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert "crc32c" in [codec["name"] for codec in sharding["configuration"]["index_codecs"]]
    return [
        (codec["name"], codec["configuration"].get("cname"), codec["configuration"].get("shuffle"))
        if codec["name"] == "blosc"
        else codec["name"]
        for codec in sharding["configuration"]["codecs"]
    ]


def expected_codecs(path: str, codec: str) -> list[Any]:
    if codec == "raw":
        return ["bytes", "crc32c"]
    return ["bytes", "zstd" if path.endswith("/data") else ("blosc", "lz4", "bitshuffle"), "crc32c"]
