"""Stores in which each image has several views, each with tokens of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from fixtures_store import make_birth, make_shard, store_of_rows
from support import sampled

from pipeline.errors import StoreError
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from pipeline.store.writing.writer import EncodedShard

COUNTS = [5, 0, 1, 9]
VIEWS = 3
OPTIONS = {"views": VIEWS, "features": ("views", "digests")}


@pytest.fixture(scope="module", params=sampled("raw", "lz4"))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of_rows(tmp_path_factory.mktemp("views") / "store", COUNTS, codec=request.param, **OPTIONS)


@pytest.fixture(scope="module")
def shards() -> list[EncodedShard]:
    """What was written."""
    return [make_shard(make_birth(**OPTIONS), f"part{number:03d}", rows) for number, rows in enumerate(COUNTS)]


def test_each_view_is_read_by_itself_or_another_one_for_each_row(path: Path, shards: list[EncodedShard]) -> None:
    store, tokens = TokenStore(path), np.concatenate([shard.tokens for shard in shards])
    assert (len(store), store.num_views, tokens.shape) == (15, VIEWS, (15, VIEWS, 8))
    for view in range(VIEWS):
        assert np.array_equal(store.read(slice(None), view=view).tokens, tokens[:, view])
    rows, views = np.array([14, 0, 5, 5, 7]), np.array([2, 0, 1, 2, 1])
    batch = store.read(rows, view=views)
    assert np.array_equal(batch.tokens, tokens[rows, views])
    assert [block.shape for block in batch.idx_Bl] == [(5, 3), (5, 5)]
    assert np.array_equal(store.read(rows, view="all").tokens, tokens[rows])
    assert store.read([], view="all").tokens.shape == (0, VIEWS, 8)
    assert torch.equal(torch.cat(store[6].idx_l), torch.from_numpy(tokens[6, 0].astype(np.int64)))
    found = store.views_of(rows)
    assert np.array_equal(found.box, np.concatenate([shard.views.box for shard in shards if shard.views])[rows])
    assert np.array_equal(found.flip, np.concatenate([shard.views.flip for shard in shards if shard.views])[rows])
    assert np.array_equal(store.views_of(rows.astype(np.uint8)).box, found.box)
    assert np.array_equal(store.views_of(rows.tolist()).flip, found.flip)
    with pytest.raises(IndexError, match="of a store of 15 samples"):
        store.views_of([-1])


def test_a_loader_gives_the_first_view(path: Path, shards: list[EncodedShard]) -> None:
    tokens = np.concatenate([shard.tokens for shard in shards])
    for batch in TokenLoader(TokenStore(path), batch_size=4, seed=1):
        assert np.array_equal(batch.tokens, tokens[batch.row, 0])


@pytest.mark.parametrize(
    ("view", "error", "message"),
    [
        (VIEWS, IndexError, "views 3 to 3 of a store of 3 views"),
        (-1, IndexError, "views -1"),
        ([0, 1], TypeError, "one for each of 3 rows"),
        (0.5, TypeError, "view must be a number"),
        ("both", TypeError, "or 'all', not 'both'"),
    ],
)
def test_views_that_rows_do_not_have(path: Path, view: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TokenStore(path).read([0, 1, 2], view=view)  # type: ignore[arg-type]


def test_zarr_readers_find_named_dimensions(path: Path) -> None:
    (part,) = [name for name in (path / "tokens.zarr/parts").iterdir() if name.name.startswith("part003")]
    group = zarr.open_group(part, mode="r")
    assert group["tokens"].metadata.dimension_names == ("sample", "view", "token")
    assert group["view/box"].metadata.dimension_names == ("sample", "view", "edge")
    assert (group["tokens"].shape, group["view/box"].shape) == ((9, VIEWS, 8), (9, VIEWS, 4))
    assert (group["view/box"].dtype, group["view/flip"].dtype) == (np.int32, np.uint8)


def test_a_store_without_views_says_nothing_of_them(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path / "store", [2]))
    birth = json.loads((tmp_path / "store/store.json").read_text())
    assert "views" not in birth
    assert "views" not in birth["features"]
    assert store.num_views == 1
    assert len(store.read([1], view=0)) == 1
    with pytest.raises(StoreError, match="has no views"):
        store.views_of(np.array([0]))
