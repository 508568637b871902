"""Rows that no file holds are refused before memory is asked for them."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from damage import rewrite
from fixtures_store import begin_store, finish_store, make_birth, make_shard, store_of_rows

from pipeline.errors import CorruptStore, VqtokError
from pipeline.store import TokenStore
from pipeline.store.schema.birth import DIGESTS
from pipeline.store.schema.seals import sealed
from pipeline.store.writing.writer import commit_part


@pytest.mark.parametrize("rows", [10**5, 2**30, 2**40, 2**47])
@pytest.mark.parametrize("codec", ["lz4", "raw"])
@pytest.mark.parametrize("features", [(), (DIGESTS,)])
def test_rows_that_no_file_holds_are_refused(rows: int, codec: str, features: tuple[str, ...], tmp_path: Path) -> None:
    store = store_of_rows(tmp_path, [20, 30], codec=codec, features=features)
    claim(store, rows)
    tracemalloc.start()
    with pytest.raises(CorruptStore, match=rf"tokens: manifest\.json says {rows:,} rows, which .* cannot hold; delete"):
        TokenStore(store)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def claim(store: Path, rows: int) -> None:
    """Have the manifest of a store say that its first part has so many rows; sums and digests agree with that."""
    path = store / "manifest.json"
    tree = json.loads(path.read_text())
    is_sealed = tree.pop("sha256", None) is not None
    tree["written"] += rows - tree["parts"][0]["written"]
    tree["parts"][0]["written"] = rows
    data = (json.dumps(tree, indent=1) + "\n").encode()
    path.write_bytes(sealed(data) if is_sealed else data)


def test_large_parts_of_many_equal_rows_are_read(tmp_path: Path) -> None:
    """They compress as far as the codec can."""
    rows = 70_000
    store = TokenStore(store_of_rows(tmp_path, [rows], vocab_size=16, block_lengths=(600,), table=None))
    assert len(store) == rows
    assert store.read([rows - 1]).stored.shape == (1, 600)


def test_rows_of_nothing_but_zeros_are_read(tmp_path: Path) -> None:
    birth = make_birth(block_lengths=(600,))
    files = begin_store(tmp_path, birth)
    shard = make_shard(birth, "zeros", 70_000)
    shard.tokens[:] = 0
    commit_part(files, birth, shard)
    finish_store(files, birth)
    assert not TokenStore(tmp_path).read(np.arange(0, 70_000, 1000)).stored.any()


def test_more_rows_in_all_than_a_store_can_have_are_refused(tmp_path: Path) -> None:
    store = store_of_rows(tmp_path, [20, 30])
    for path in (store / "commits").iterdir():
        rewrite(path, written=(1 << 48) - 1)
    with pytest.raises(VqtokError, match=r"commits: the records tell of [\d,]+ rows"):
        TokenStore(store, partial=True)
