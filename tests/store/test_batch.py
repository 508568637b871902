"""`TokenBatch` on its way to devices and to other processes."""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import Child, begin_store, finish_store, make_birth, make_shard, store_of_keys, store_of_rows
from torch.utils.data import DataLoader

from pipeline.errors import StoreError, TokenizerError
from pipeline.loader import TokenLoader
from pipeline.models.layouts.cuts import CUTS
from pipeline.records import Geometry
from pipeline.store import TokenStore
from pipeline.store.batch import TokenBatch
from pipeline.store.writing.writer import commit_part

pytest_plugins = ["fixtures_store"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with parts of 30 and 21 rows, 300 tokens in the vocabulary."""
    return store_of_rows(tmp_path_factory.mktemp("batch") / "store", [30, 21], vocab_size=300)


@pytest.fixture(scope="module")
def store(path: Path) -> TokenStore:
    """The store at `path`."""
    return TokenStore(path)


def masked(store: TokenStore) -> TokenBatch:
    """The last batch of an epoch, 9 of its 20 rows there only to fill it up."""
    *_, last = TokenLoader(store, batch_size=20, remainder="pad")
    return last


def told(batch: TokenBatch) -> list[Any]:
    """All that a batch says."""
    mask = None if batch.mask is None else batch.mask.tolist()
    blocks = [block.tolist() for block in batch.idx_Bl]
    return [str(batch.stored.dtype), blocks, batch.label.tolist(), batch.row.tolist(), batch.key, mask]


@pytest.mark.parametrize("non_blocking", [False, True])
def test_all_tensors_move_in_the_bytes_they_are_stored_in(store: TokenStore, non_blocking: bool) -> None:
    batch = masked(store)
    moved = batch.to("meta", non_blocking=non_blocking)  # the device that every machine has
    assert moved.mask is not None
    tensors = (moved.stored, moved.tokens, moved.label, moved.mask, *moved.idx_Bl)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.stored.dtype, moved.tokens.dtype, moved.idx_Bl[0].dtype) == (torch.uint16, torch.int64, torch.int64)
    assert (moved.key, moved.row.tolist(), moved.store) == (batch.key, batch.row.tolist(), store)
    assert batch.stored.device.type == "cpu"
    assert told(batch.to(torch.device("cpu"), non_blocking=non_blocking)) == told(batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_pinned_batch_moves_to_a_gpu_without_blocking(store: TokenStore) -> None:
    batch = masked(store)
    pinned = batch.pin_memory()
    assert pinned.mask is not None
    assert all(tensor.is_pinned() for tensor in (pinned.stored, pinned.label, pinned.mask))
    moved = pinned.to("cuda", non_blocking=True)
    assert moved.idx_Bl[0].device.type == "cuda"
    torch.cuda.synchronize()
    assert told(moved) == told(pickle.loads(pickle.dumps(moved))) == told(batch)
    for batch in DataLoader(TokenLoader(store, batch_size=20), batch_size=None, num_workers=1, pin_memory=True):
        assert batch.stored.is_pinned()


@pytest.mark.parametrize("workers", [0, 1])
def test_pinning_where_there_is_no_gpu_does_no_harm(
    store: TokenStore, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loader = DataLoader(TokenLoader(store, batch_size=20), batch_size=None, num_workers=workers, pin_memory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it does not pin
        assert sorted(row for batch in loader for row in batch.row) == list(range(51))


def test_tokens_are_what_torch_computes_with(store: TokenStore) -> None:
    """uint16 tensors cannot be added, embedded or used as an index."""
    batch = store.read(slice(0, 4))
    assert batch.stored.dtype == torch.uint16
    assert torch.equal(batch.tokens + 1000, batch.stored.long() + 1000)
    assert torch.nn.Embedding(300, 2)(batch.tokens).shape == (4, 8, 2)
    assert batch.idx_Bl[0].data_ptr() == batch.tokens.data_ptr()  # one copy serves both
    assert {name: t.dtype for name, t in batch.as_dict().items()} == dict.fromkeys(
        ("tokens", "label", "row"), torch.int64
    )
    assert masked(store).as_dict()["mask"].dtype == torch.bool


def laid_out(folder: Path, layout: str, grid: tuple[int, int], lengths: Sequence[int], **options: Any) -> TokenStore:
    """A store of 12 rows whose blocks are those of a layout."""
    geometry = Geometry(image_size=(64, 64), grid=grid, layout=layout, block_lengths=tuple(lengths), decodable=True)
    return TokenStore(store_of_rows(folder / layout, [5, 7], vocab_size=300, geometry=geometry, **options))


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (1, 4)])
@pytest.mark.parametrize("layout", ["raster", "quadrants"])
def test_the_grid_is_that_of_the_image_whatever_the_layout(
    tmp_path: Path, layout: str, grid: tuple[int, int], views: int | None
) -> None:
    cut = CUTS[layout]
    of_views = {} if views is None else {"views": views, "features": ("views",)}
    store = laid_out(tmp_path, layout, grid, cut.block_lengths(grid), **of_views)
    batch = store.read([7, 2, 11])
    assert (batch.grid.dtype, batch.grid.shape) == (torch.int64, (3, *grid))
    assert torch.equal(batch.grid, cut.join(batch.idx_Bl, grid))
    assert torch.equal(batch[1:].to("cpu").grid, batch.grid[1:])
    if views:
        whole = store.read([7, 2, 11], view="all").grid
        assert whole.shape == (3, views, *grid)
        assert torch.equal(whole[:, 0], batch.grid)


@pytest.mark.parametrize(
    ("layout", "lengths", "message"),
    [
        ("diagonal", (4, 4), "layout 'diagonal' leaves cells of the grid out; batch.idx_Bl has its blocks"),
        ("multiscale", (1, 4, 16), "layout 'multiscale' has a grid for each of its 3 scales, and no single one"),
        ("spiral", (16,), r"layout 'spiral' is none that this version turns into a grid \(it knows raster, quad"),
    ],
)
def test_a_layout_without_one_grid_is_named(tmp_path: Path, layout: str, lengths: list[int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        _ = laid_out(tmp_path, layout, (4, 4), lengths).read([0]).grid


def test_kept_captions_are_text(tmp_path: Path) -> None:
    store = TokenStore(store_of_keys(tmp_path, {"a": ["x", "y", "z"]}, {"txt": ["grün".encode(), None, b""]}))
    assert store.read([1, 0, 2]).text() == [None, "grün", ""]
    assert store.read([0]).field("txt") == ["grün".encode()]
    with pytest.raises(StoreError, match="no field 'json'; there is txt"):
        store.read([0]).text("json")
    store = TokenStore(store_of_keys(tmp_path / "latin", {"a": ["x", "y"]}, {"txt": [b"green", b"gr\xfcn"]}))
    with pytest.raises(StoreError, match=r"field 'txt' of row 1, 'y', is not UTF-8 text .* batch.field\('txt'\) gives"):
        store.read([0, 1]).text()


@pytest.mark.parametrize("rows", [0, -1, [0, 1], torch.tensor([True, False])])
def test_a_batch_takes_slices_only(store: TokenStore, rows: Any) -> None:
    with pytest.raises(TypeError, match=r"takes a slice, such as batch\[0:1\], not .*collate_fn=TokenDataset.collate"):
        store.read([0, 1])[rows]


def test_here_a_pickled_batch_finds_the_store_that_is_open(tmp_path: Path) -> None:
    """Whichever of two alike was closed."""
    path = store_of_rows(tmp_path / "store", [9])
    first, second = TokenStore(path), TokenStore(path)
    pickled = pickle.dumps(first.read(slice(5)))
    assert pickle.loads(pickled).store in (first, second)
    del second
    assert pickle.loads(pickled).store is first
    second = TokenStore(path)
    del first
    assert pickle.loads(pickled).store is second


def test_a_pickled_batch_is_small_and_its_tensors_can_be_written_to(store: TokenStore) -> None:
    batch = masked(store)
    pickled = pickle.dumps(batch, protocol=5)
    assert len(pickled) < 2000
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's for memory that is read-only
        again = pickle.loads(pickled)
    again.stored.fill_(1)
    assert told(pickle.loads(pickled)) == told(batch)


def tell(pickled: bytes, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(told(pickle.loads(pickled))))


def test_a_process_that_has_not_opened_the_store_reads_keys_all_the_same(store: TokenStore, tmp_path: Path) -> None:
    batch = masked(store)
    done = Child(tell, pickle.dumps(batch), str(tmp_path / "told"), folder=tmp_path / "child").wait()
    assert done.status == 0, done.err
    assert pickle.loads((tmp_path / "told").read_bytes()) == told(batch)


def tell_keys(pickled: bytes, path: str) -> None:
    store, keys = pickle.loads(pickled)
    Path(path).write_bytes(pickle.dumps([list(keys), [batch.row for batch in TokenLoader(store, batch_size=2)]]))


def test_workers_see_the_rows_of_a_store_that_was_opened_in_part_and_has_grown(tmp_path: Path) -> None:
    birth = make_birth()
    files = begin_store(tmp_path / "store", birth)
    commit_part(files, birth, make_shard(birth, "b", 3))
    store = TokenStore(tmp_path / "store", partial=True)
    pickled = pickle.dumps((store, store.keys))
    for grown in (False, True):
        if grown:
            commit_part(files, birth, make_shard(birth, "a", 2))
            finish_store(files, birth)
        done = Child(tell_keys, pickled, str(tmp_path / "told"), folder=tmp_path / "child").wait()
        assert done.status == 0, done.err
        keys, rows = pickle.loads((tmp_path / "told").read_bytes())
        assert keys == list(store.keys) == make_shard(birth, "b", 3).keys
        assert sorted(np.concatenate(rows).tolist()) == [0, 1, 2]
    assert len(TokenStore(tmp_path / "store")) == 5
