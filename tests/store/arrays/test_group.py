"""Zarr groups as files: any Zarr reader opens them, and at no moment is there data that nothing describes."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.files import Files, files_at
from pipeline.store.arrays.group import make_group

pytest_plugins = ["fixtures_store", "fixtures_s3"]

ARRAYS = {
    "tokens": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "label": np.arange(3),
    "key/data": np.frombuffer(b"abc", np.uint8),
    "fields/txt/data": np.frombuffer(b"", np.uint8),
}


def test_metadata_comes_first_and_from_the_outside_in() -> None:
    paths = list(make_group(ARRAYS, "lz4", digests=True).contents)
    assert paths == [
        "zarr.json",
        *("fields/zarr.json", "key/zarr.json", "label/zarr.json", "tokens/zarr.json"),
        *("fields/txt/zarr.json", "key/data/zarr.json"),
        "fields/txt/data/zarr.json",
        *("label/c/0", "key/data/c/0", "tokens/c/0/0"),  # none for the empty array
    ]


def test_the_same_arrays_are_the_same_bytes() -> None:
    assert (
        make_group(ARRAYS, "lz4", digests=True).contents
        == make_group(dict(reversed(ARRAYS.items())), "lz4", digests=True).contents
    )


@pytest.mark.parametrize("place", ["local", "s3"])
@pytest.mark.parametrize("codec", ["lz4", "raw"])
def test_a_group_is_read_where_it_was_put(
    place: str, codec: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files = files_at(str(tmp_path) if place == "local" else request.getfixturevalue("bucket_url"))
    made = make_group(ARRAYS, codec, digests=True)
    files.put_folder("parts/p.1", made.contents, "staging/p.1")
    group = zarr.open_group(str(fetched(files, "parts/p.1", tmp_path / "fetched")), mode="r")
    found = {path: node for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert {path: np.asarray(array[...]).tolist() for path, array in found.items()} == {
        path: array.tolist() for path, array in ARRAYS.items()
    }
    assert {path: (array.shape, str(array.dtype), array.chunks) for path, array in found.items()} == {
        path: (record.shape, record.dtype, record.chunks) for path, record in made.arrays.items()
    }


def fetched(files: Files, folder: str, target: Path) -> Path:
    """A copy of a folder of files, wherever they are."""
    for path in files.stats(folder):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(files.read(f"{folder}/{path}"))
    return target
