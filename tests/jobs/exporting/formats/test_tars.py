"""webdataset: read back by webdataset."""

import json
from pathlib import Path

import numpy as np
import pytest
import webdataset
from fixtures_exports import ROWS, TEXTS, VIEWS, export, grids, keys, labels, store_to_export

pytest_plugins = ["fixtures_exports"]


def read(out: Path) -> list[dict[str, object]]:
    names = [str(path) for path in sorted(out.glob("*.tar"))]
    return list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False).decode())


def test_samples(exported_store: Path, tmp_path: Path) -> None:
    out = export(exported_store, tmp_path / "out", "--format", "webdataset", "--rows-per-file", "10")
    assert sorted(path.name for path in out.iterdir()) == [*(f"{n:05d}.tar" for n in range(4)), "export.json"]
    samples = read(out)
    assert [sample["__key__"] for sample in samples] == [f"{row:09d}" for row in range(ROWS)]
    tokens = np.stack([sample["tokens.npy"] for sample in samples])
    assert tokens.dtype == np.uint16
    assert np.array_equal(tokens, grids(exported_store)[:, 0])
    assert [sample["cls"] for sample in samples] == labels(exported_store)
    about = [sample["json"] for sample in samples]
    assert [tree["key"] for tree in about] == keys(exported_store)
    texts = [None if text is None else text.decode() for text in TEXTS]
    assert [tree["txt"] for tree in about[:7]] == [texts[row % 4] for row in range(7)]
    assert [tree["kept_key"] for tree in about[:7]] == [texts[row % 4] for row in range(7)]


def test_views_and_fields_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures_exports.TEXTS", (b"\xff",))
    store = store_to_export(tmp_path / "store", fields=["bin"], views=VIEWS, features=("views", "digests"))
    samples = read(export(store, tmp_path / "out", "--format", "webdataset"))
    assert np.array_equal(np.stack([sample["tokens.npy"] for sample in samples]), grids(store))
    assert {json.dumps(sample["json"]["bin"]) for sample in samples} == {'{"base64": "/w=="}'}
