"""llamagen: read back as LlamaGen's CustomDataset does."""

from pathlib import Path

import numpy as np
from fixtures_exports import ROWS, VIEWS, export, grids, labels, vqtok_export

pytest_plugins = ["fixtures_exports"]


def read(out: Path, name: str) -> tuple[np.ndarray, list[int]]:
    """All codes and labels, of files without gaps."""
    codes, of_labels = out / f"{name}_codes", out / f"{name}_labels"
    for folder in (codes, of_labels):
        assert {path.name for path in folder.iterdir()} == {f"{row}.npy" for row in range(ROWS)}
    features = np.stack([np.load(codes / f"{row}.npy") for row in range(ROWS)])
    found = np.stack([np.load(of_labels / f"{row}.npy") for row in range(ROWS)])
    assert (features.dtype, found.dtype, found.shape) == (np.int64, np.int64, (ROWS, 1))
    return features, found[:, 0].tolist()


def test_a_file_for_each_image(exported_store: Path, tmp_path: Path) -> None:
    codes, found = read(export(exported_store, tmp_path / "out", "--format", "llamagen"), "imagenet12")
    assert codes.shape == (ROWS, 1, 1, 15)
    assert np.array_equal(codes[:, 0], grids(exported_store))
    assert found == labels(exported_store)


def test_views(store_of_views: Path, tmp_path: Path) -> None:
    words = ("--format", "llamagen", "--name", "photos256")
    codes, _ = read(export(store_of_views, tmp_path / "flip_ten_crop", *words), "photos256")
    assert codes.shape == (ROWS, 1, VIEWS, 15)
    assert np.array_equal(codes[:, 0], grids(store_of_views))
    done = vqtok_export(store_of_views, tmp_path / "elsewhere", *words)
    assert "only from a path with `flip` in it" in done.stdout


def test_a_name_that_is_none(exported_store: Path, tmp_path: Path) -> None:
    done = vqtok_export(exported_store, tmp_path / "out", "--format", "llamagen", "--name", "../photos")
    assert done.exit_code == 2
    assert "has no slash" in done.stderr
