"""Which view of each image loaders give: a pure function of seed, epoch and row, from any point on."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_mixtures import table_of
from fixtures_store import store_of_rows
from support import sampled
from torch.utils.data import DataLoader

from pipeline.errors import StoreError
from pipeline.loader import MixtureLoader, TokenBatch, TokenLoader
from pipeline.loader import epochs as order_module
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays

VIEWS = 3
COUNTS = [40, 0, 7, 53]
ROWS = sum(COUNTS)
EPOCHS = 3


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "WINDOW_CHUNKS", 1)


@pytest.fixture(scope="module", params=sampled("lz4", "raw"))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """100 rows of 3 views, in chunks of at most 16 rows."""
    return opened(tmp_path_factory.mktemp("views") / "store", COUNTS, codec=request.param)


def opened(folder: Path, counts: list[int], views: int | None = VIEWS, **options: Any) -> TokenStore:
    of_views = {} if views is None else {"views": views, "features": ("views",)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8 * (views or 1))
        return TokenStore(store_of_rows(folder, counts, table_of(16), **of_views, **options))


def drawn(seed: int, epoch: int, rows: np.ndarray, views: int = VIEWS) -> list[int]:
    """From the description of the function, one row after the other."""
    key = int.from_bytes(hashlib.sha256(f"views/{seed}/{epoch}".encode()).digest()[:8], "little")
    found = []
    for row in rows.tolist():
        state = (key + (row + 1) * 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        found.append(((state ^ state >> 31) >> 32) * views >> 32)
    return found


def tokens_of(store: TokenStore, rows: np.ndarray, views: Any) -> np.ndarray:
    tokens: np.ndarray = store.read(rows, view=views).tokens.numpy()
    return tokens


def check(batches: Iterable[TokenBatch], store: TokenStore, seed: int, epoch: int) -> list[int]:
    """Each batch has the views of that epoch; the rows that came."""
    rows: list[int] = []
    for batch in batches:
        rows += batch.row.tolist()
        assert np.array_equal(batch.tokens, tokens_of(store, batch.row, drawn(seed, epoch, batch.row)))
    return rows


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("remainder", ["uneven", "pad"])
def test_random_views_are_drawn_anew_in_every_epoch(store: TokenStore, world_size: int, remainder: Any) -> None:
    ranks = [
        TokenLoader(store, 8, seed=5, rank=rank, world_size=world_size, remainder=remainder, views="random")
        for rank in range(world_size)
    ]
    for epoch in range(EPOCHS):
        rows = [row for loader in ranks for row in check(loader, store, seed=5, epoch=epoch)]
        assert sorted(set(rows)) == list(range(ROWS))
    seen = [drawn(5, epoch, np.arange(ROWS)) for epoch in range(EPOCHS)]
    assert set(seen[0]) == {0, 1, 2}
    assert sum(one == other for one, other in zip(seen[0], seen[1], strict=True)) < ROWS / 2


def test_all_views_come_with_their_image(store: TokenStore) -> None:
    loader = TokenLoader(store, 8, seed=1, remainder="pad", views="all")
    rows = []
    for batch in loader:
        assert (batch.tokens.shape, len(batch)) == ((8, VIEWS, 8), 8)
        for view in range(VIEWS):
            assert np.array_equal(batch.tokens[:, view], tokens_of(store, batch.row, view))
        assert batch.mask is not None
        rows += batch.row[batch.mask.numpy()].tolist()
        assert [block.shape for block in batch.idx_Bl] == [(8, VIEWS, 3), (8, VIEWS, 5)]
        assert torch.equal(batch.label, torch.from_numpy(store.labels_of(batch.row)))
        x_BVLC = store.idxBl_to_var_input(batch.idx_Bl)
        assert torch.equal(x_BVLC[:, 1], store.idxBl_to_var_input([block[:, 1] for block in batch.idx_Bl]))
    assert sorted(rows) == list(range(ROWS))
    assert batch[2:4].tokens.shape == (2, VIEWS, 8)


def test_one_view_is_given_by_its_number(store: TokenStore) -> None:
    for batch in TokenLoader(store, 16, views=2):
        assert np.array_equal(batch.tokens, tokens_of(store, batch.row, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_random_views_go_on_where_they_stood(store: TokenStore, workers: int) -> None:
    loader = TokenLoader(store, 8, seed=2, views="random")
    loader.set_epoch(1)
    first = list(islice(loader, 4))
    state = loader.state_dict()
    other = TokenLoader(store, 10, seed=2, views="random", rank=0, world_size=1)
    other.load_state_dict(state)
    rest: Any = DataLoader(other, batch_size=None, num_workers=workers) if workers else other
    rows = check(first, store, 2, 1) + check(rest, store, 2, 1)
    assert sorted(rows) == list(range(ROWS))


def test_a_state_that_says_nothing_of_views_is_that_of_the_first(store: TokenStore) -> None:
    older = TokenLoader(store, 8).state_dict()
    assert "views" not in older
    TokenLoader(store, 8, views=0).load_state_dict(older)
    with pytest.raises(StoreError, match="the loader's state has views 0, this loader 'random'"):
        TokenLoader(store, 8, views="random").load_state_dict(older)
    newer = TokenLoader(store, 8, views="all").state_dict()
    assert newer["views"] == "all"
    with pytest.raises(StoreError, match="the loader's state has views 'all', this loader 0"):
        TokenLoader(store, 8).load_state_dict(newer)


@pytest.mark.parametrize("views", [3, -1, "some", 0.5, None, True])
def test_views_that_no_store_has_are_refused(store: TokenStore, views: Any) -> None:
    with pytest.raises(ValueError, match=r"views must be 'random', 'all' or a number in 0 \.\. 2, for .* has 3 views"):
        TokenLoader(store, views=views)


def test_a_store_without_views_has_one(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", [20], views=None)
    first = torch.cat([batch.tokens for batch in TokenLoader(store, 8)])
    for views, shape in ((0, (20, 8)), ("random", (20, 8)), ("all", (20, 1, 8))):
        tokens = torch.cat([batch.tokens for batch in TokenLoader(store, 8, views=views)])  # type: ignore[arg-type]
        assert (tokens.shape, torch.equal(tokens.reshape(20, 8), first)) == (shape, True)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("offsets", [None, [0, 16]])
def test_a_mixture_draws_anew_in_every_pass(store: TokenStore, tmp_path: Path, offsets: Any) -> None:
    """Of stores with different numbers of views, too, and resumed in the middle of a pass."""
    other = opened(tmp_path / "other", [30], views=2)
    stores = [store, other]

    def mixture() -> MixtureLoader:
        return MixtureLoader(stores, [0.5, 0.5], 10, seed=3, views="random", offsets=offsets)

    loader = mixture()
    batches = list(islice(loader, 7))
    state, later = loader.state_dict(), mixture()
    later.load_state_dict(state)
    batches += list(islice(later, 6))
    taken = [0, 0]
    for batch in batches:
        for place, (source, row) in enumerate(zip(batch.source.tolist(), batch.row_in_source.tolist(), strict=True)):
            number = taken[source] // len(stores[source])  # of the pass
            taken[source] += 1
            view = drawn(3 + source, number, np.array([row]), stores[source].num_views)
            expected = tokens_of(stores[source], np.array([row]), view)[0] + (offsets[source] if offsets else 0)
            assert np.array_equal(batch.tokens[place], expected)
    assert min(taken) > 60 and taken[1] > 2 * 30  # the third pass of the smaller one


@pytest.mark.usefixtures("small_blocks")
def test_a_mixture_of_all_views(store: TokenStore, tmp_path: Path) -> None:
    other = opened(tmp_path / "other", [30], vocab_size=16)
    for offsets in (None, [0, 300]):
        batch = next(iter(MixtureLoader([store, other], [0.5, 0.5], 10, views="all", offsets=offsets)))
        assert batch.tokens.shape == (10, VIEWS, 8)
        for place, (source, row) in enumerate(zip(batch.source.tolist(), batch.row_in_source.tolist(), strict=True)):
            shift = offsets[source] if offsets else 0
            expected = tokens_of([store, other][source], np.array([row]), "all")[0].astype(int) + shift
            assert np.array_equal(batch.tokens[place].numpy().astype(int), expected)
    fewer = opened(tmp_path / "fewer", [5], views=2)
    with pytest.raises(StoreError, match=r"store has 3 views of each image, .*fewer has 2"):
        MixtureLoader([store, fewer], views="all")
    with pytest.raises(ValueError, match=r"loaders \[1\] give all views"):
        MixtureLoader([store, TokenLoader(other, views="all")])


def test_the_configuration_says_which_views(store: TokenStore, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(f"tokenize: {{store: {store.root}}}\nloader: {{views: random, seed: 4, batch_size: 16}}\n")
    check(TokenLoader.from_config(file), store, 4, 0)
    assert next(iter(TokenLoader.from_config(file, set=["loader.views=all"]))).tokens.shape == (16, VIEWS, 8)
    assert TokenLoader.from_config(file, views=1).ordered.views.which == 1
