"""Opening arrays through a cache, whose copies are compared with the commit record."""

from pathlib import Path

import pytest
from fixtures_store import store_of_rows

from pipeline.errors import CorruptStore
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from pipeline.store.cache.parts import PartCache


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_commit_that_a_cache_needs_is_named(tmp_path: Path, damage: str) -> None:
    path = store_of_rows(tmp_path / "store", [30, 20])
    commit = path / "commits/part001.json"
    commit.unlink() if damage == "deleted" else commit.write_text("{")
    store = TokenStore(path, cache=PartCache(tmp_path / "cache", 1 << 20))
    assert len(store.read(slice(0, 30))) == 30
    for read in (lambda: store.read([40]), lambda: list(TokenLoader(store, batch_size=8, shuffle=True, seed=0))):
        with pytest.raises(CorruptStore, match=r"commits/part001\.json: "):
            read()
