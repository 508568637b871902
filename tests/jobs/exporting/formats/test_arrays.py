"""npy: read back by numpy."""

from pathlib import Path

import numpy as np
import pytest
from fixtures_exports import ROWS, VIEWS, export, grids, keys, labels, vqtok_export
from fixtures_store import store_of_keys

from pipeline.jobs.exporting.formats import arrays

pytest_plugins = ["fixtures_exports"]


@pytest.mark.parametrize("piece_bytes", [1, 150, 1 << 26])
def test_arrays(exported_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(arrays, "_PIECE_BYTES", piece_bytes)
    out = export(exported_store, tmp_path / "out", "--format", "npy")
    tokens = np.load(out / "tokens.npy", mmap_mode="r")
    assert (tokens.dtype, tokens.shape) == (np.uint16, (ROWS, 15))
    assert np.array_equal(tokens, grids(exported_store)[:, 0])
    found = np.load(out / "labels.npy")
    assert (found.dtype, found.tolist()) == (np.int64, labels(exported_store))
    assert (out / "keys.txt").read_text().splitlines() == keys(exported_store)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "keys.txt", "labels.npy", "tokens.npy"]


def test_views(store_of_views: Path, tmp_path: Path) -> None:
    expected = grids(store_of_views)
    assert np.array_equal(np.load(export(store_of_views, tmp_path / "a", "--format", "npy") / "tokens.npy"), expected)
    one = export(store_of_views, tmp_path / "b", "--format", "npy", "--view", "2")
    assert np.array_equal(np.load(one / "tokens.npy"), expected[:, 2])
    rows = export(store_of_views, tmp_path / "c", "--format", "npy", "--view", "rows")
    assert np.array_equal(np.load(rows / "tokens.npy"), expected.reshape(ROWS * VIEWS, -1))
    assert np.load(rows / "labels.npy").tolist() == np.repeat(labels(store_of_views), VIEWS).tolist()
    assert (rows / "keys.txt").read_text().splitlines() == [key for key in keys(store_of_views) for _ in range(VIEWS)]


def test_a_key_of_two_lines_is_refused(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"part": ["a", "b\nc"]})
    done = vqtok_export(store, tmp_path / "out", "--format", "npy")
    assert done.exit_code == 1
    assert "key 'b\\nc' has a line break" in done.stderr
