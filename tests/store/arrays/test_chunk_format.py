"""An array's metadata are compared with the records of its store, and never believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_store import begin_store, finish_store, make_birth, make_shard
from support import sampled

from pipeline.errors import CorruptStore
from pipeline.store import TokenStore
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.storage import create_array
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.writing.writer import commit_part

Tree = dict[str, Any]
ROWS = 99


def inner(tree: Tree) -> Tree:
    return tree["codecs"][0]["configuration"]  # type: ignore[no-any-return]


def grid(tree: Tree) -> Tree:
    return tree["chunk_grid"]["configuration"]  # type: ignore[no-any-return]


CHANGES: dict[str, Callable[[Tree], Any]] = {
    "separator": lambda tree: tree["chunk_key_encoding"]["configuration"].update(separator="."),
    "key encoding": lambda tree: tree["chunk_key_encoding"].update(name="v2"),
    "narrower": lambda tree: [
        it.__setitem__(-1, 5) for it in (tree["shape"], grid(tree)["chunk_shape"], inner(tree)["chunk_shape"])
    ],
    "fewer rows": lambda tree: tree["shape"].__setitem__(0, 1),
    "more rows": lambda tree: tree["shape"].__setitem__(0, ROWS + 1),
    "negative": lambda tree: tree["shape"].__setitem__(0, -ROWS),
    "rows of text": lambda tree: tree["shape"].__setitem__(0, "99"),
    "no dimensions": lambda tree: tree["shape"].clear(),
    "one more dimension": lambda tree: tree["shape"].append(1),
    "no shape": lambda tree: tree.pop("shape"),
    "data type": lambda tree: tree.update(data_type="float16"),
    "unknown type": lambda tree: tree.update(data_type="string"),
    "fill value": lambda tree: tree.update(fill_value=7),
    "endian": lambda tree: inner(tree)["codecs"][0].update(configuration={"endian": "big"}),
    "no order": lambda tree: inner(tree)["codecs"].pop(0),
    "no checksum": lambda tree: inner(tree)["codecs"].pop(),
    "compressor": lambda tree: inner(tree)["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}}),
    "shuffle": lambda tree: inner(tree)["codecs"][1].update(configuration={"cname": "lz4", "shuffle": "shuffle"}),
    "transposed": lambda tree: tree["codecs"].insert(0, {"name": "transpose", "configuration": {"order": [1, 0]}}),
    "index first": lambda tree: inner(tree).update(index_location="start"),
    "index unchecked": lambda tree: inner(tree)["index_codecs"].pop(),
    "another shard": lambda tree: grid(tree)["chunk_shape"].__setitem__(0, 5),
    "chunks of no rows": lambda tree: inner(tree)["chunk_shape"].__setitem__(0, 0),
    "transformers": lambda tree: tree.update(storage_transformers=[{"name": "x"}]),
    "another version": lambda tree: tree.update(zarr_format=2),
    "a group": lambda tree: tree.update(node_type="group"),
    "something new": lambda tree: tree.update(extension={"must_understand": True}),
}
"""What may be wrong with the metadata of uint16 [99, 8] in one Blosc chunk."""


@pytest.fixture(scope="module")
def metadata() -> bytes:
    import zarr
    from zarr.storage import MemoryStore

    memory: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    create_array(group, "tokens", np.zeros((ROWS, 8), np.uint16), "lz4")
    return memory["tokens/zarr.json"].to_bytes()  # type: ignore[no-any-return]


STORED = StoredArray(ROWS, (8,), np.dtype("<u2"), "blosc")


def test_what_zarr_writes_is_what_is_expected(metadata: bytes) -> None:
    found = ChunkFormat.of(metadata, STORED)
    assert (found.shape, found.chunk_rows, found.chunks) == ((ROWS, 8), ROWS, 1)
    otherwise = json.loads(metadata)  # as other versions of zarr-python may say the same
    inner(otherwise)["codecs"][1]["configuration"].update(clevel=9, typesize=1, blocksize=4096)
    otherwise |= {"attributes": {"by": "a person"}, "dimension_names": None}
    del otherwise["storage_transformers"]
    assert ChunkFormat.of(json.dumps(otherwise).encode(), STORED) == found


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_was_not_written_is_damage(metadata: bytes, change: str) -> None:
    tree = json.loads(metadata)
    CHANGES[change](tree)
    assert json.dumps(tree) != json.dumps(json.loads(metadata))
    with pytest.raises(Damage, match=r"its zarr\.json"):
        ChunkFormat.of(json.dumps(tree).encode(), STORED)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "1e999", "[" * 100_000, '{"codecs": 1}'])
def test_what_is_no_metadata_is_damage(text: str) -> None:
    with pytest.raises(Damage, match=r"its zarr\.json does not describe it"):
        ChunkFormat.of(text.encode(), STORED)


@pytest.mark.parametrize(
    ("codec", "features", "step"),
    sampled(
        ("lz4", ("digests",), 12),
        ("lz4", ("digests",), 3),
        ("lz4", (), 3),
        ("raw", ("digests",), 3),
        ("raw", (), 3),
    ),
)
def test_no_flipped_bit_of_metadata_changes_what_is_read(
    tmp_path: Path, codec: str, features: tuple[str, ...], step: int
) -> None:
    """In stores with and without digests: each bit is refused, or says nothing of the rows."""
    birth = make_birth(block_lengths=[64], vocab_size=300, codec=codec, features=features)
    files, shard = begin_store(tmp_path, birth), make_shard(birth, "p", ROWS)
    commit = commit_part(files, birth, shard)
    finish_store(files, birth)
    rows, refused = np.arange(ROWS), 0
    for path in ("tokens", "label", "key/data", "key/offsets"):
        file = Path(files.root) / f"tokens.zarr/parts/p.{commit.attempt}/{path}/zarr.json"
        data = file.read_bytes()
        for position in range(0, len(data), step):
            damaged = bytearray(data)
            damaged[position] ^= 1 << position % 7
            file.write_bytes(damaged)
            store = TokenStore(str(tmp_path))
            try:
                batch = store.read(rows)
                read = (
                    batch.tokens_BL if hasattr(batch, "tokens_BL") else np.concatenate(batch.idx_Bl, axis=1),
                    batch.label,
                )
                keys = batch.key
            except CorruptStore as error:
                assert path in str(error)
                refused += 1
                continue
            assert np.array_equal(read[0], shard.tokens)
            assert (read[1].tolist(), keys) == (shard.labels, shard.keys)
        file.write_bytes(data)
    assert refused > 1500 / step
