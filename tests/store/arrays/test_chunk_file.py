"""The index of a chunk file: what it lists is all that the file has."""

import numpy as np
import pytest
import zarr

from pipeline.store.arrays.chunk_file import read_index
from pipeline.store.arrays.chunked import Damage
from pipeline.store.types import Array

CHUNKS = 3


@pytest.fixture
def chunk_file(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """Of an array of three chunks, as zarr-python writes it."""
    folder = tmp_path_factory.mktemp("array")
    values = np.arange(12, dtype=np.uint16)
    zarr.create_array(folder, data=values, chunks=(4,), shards=(12,), compressors=None)
    return np.frombuffer((folder / "c/0").read_bytes(), np.uint8)


def test_places_of_chunks(chunk_file: Array) -> None:
    assert sorted(map(tuple, read_index(chunk_file, CHUNKS).tolist())) == [(0, 8), (8, 8), (16, 8)]


def test_a_file_to_which_itself_was_appended_is_damaged(chunk_file: Array) -> None:
    with pytest.raises(Damage, match="bytes of chunks, and its index lists 24"):
        read_index(np.concatenate([chunk_file, chunk_file]), CHUNKS)


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_file_that_was_cut_is_damaged(chunk_file: Array, kept: int) -> None:
    with pytest.raises(Damage, match=r"is cut or empty|the checksum of its chunk file's index"):
        read_index(chunk_file[:kept], CHUNKS)
