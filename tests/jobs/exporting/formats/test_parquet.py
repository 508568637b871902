"""parquet: opened by Hugging Face `datasets`."""

from pathlib import Path

import numpy as np
import pytest
from fixtures_exports import CLASSES, ROWS, TEXTS, VIEWS, export, grids, keys, labels, store_to_export, vqtok_export

pytest_plugins = ["fixtures_exports"]
parquet = pytest.importorskip("pyarrow.parquet")


def texts() -> list[bytes | None]:
    return [TEXTS[row % 4] for rows in (7, 30) for row in range(rows)]


def test_columns(exported_store: Path, tmp_path: Path) -> None:
    out = export(exported_store, tmp_path / "out", "--format", "parquet", "--rows-per-file", "20", "--binary", "key")
    files = sorted(out.glob("*.parquet"))
    assert [parquet.read_metadata(file).num_rows for file in files] == [20, 17]
    found = parquet.read_table(files[0]).schema
    assert [str(found.field(name).type) for name in ("tokens", "txt", "kept_key")] == [
        "fixed_size_list<element: int16>[15]",
        "string",
        "binary",
    ]
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    assert [row["tokens"] for row in rows] == grids(exported_store)[:, 0].tolist()
    assert [row["label"] for row in rows] == labels(exported_store)
    assert [row["key"] for row in rows] == keys(exported_store)
    assert [row["kept_key"] for row in rows] == texts()
    assert [row["txt"] for row in rows] == [None if text is None else text.decode() for text in texts()]


def test_datasets_opens_it_as_it_is(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = store_to_export(tmp_path / "store", classes=CLASSES, views=VIEWS, features=("classes", "views", "digests"))
    for options, expected in (((), grids(store)), (("--view", "1"), grids(store)[:, 1])):
        out = export(store, tmp_path / f"out{len(options)}", "--format", "parquet", "--rows-per-file", "20", *options)
        found = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(found) == ROWS
        assert found["key"][:] == keys(store)
        assert found["label"][:] == labels(store)
        assert found.features["label"].names == ["cat", "crane (1)", "dog", "crane (3)", "eel", "fox"]
        try:
            tokens = found.with_format("torch")["tokens"][:]
        except ImportError as error:
            pytest.skip(f"these versions of datasets and torchvision do not go together: {error}")
        assert np.array_equal(np.asarray(tokens), expected)


def test_labels_beyond_the_names_are_numbers(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = store_to_export(tmp_path / "store", classes=CLASSES[:5], features=("classes", "digests"))
    out = export(store, tmp_path / "out", "--format", "parquet")
    found = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["label"][:] == labels(store)
    assert found.features["label"].dtype == "int64"


def test_large_vocabularies_get_wide_tokens(tmp_path: Path) -> None:
    store = store_to_export(tmp_path / "store", vocab_size=1 << 17, token_dtype="uint32")
    out = export(store, tmp_path / "out", "--format", "parquet")
    table = parquet.read_table(out / "part-00000.parquet")
    assert str(table.schema.field("tokens").type) == "fixed_size_list<element: int32>[15]"
    assert table["tokens"].to_pylist() == grids(store)[:, 0].tolist()


def test_a_field_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures_exports.TEXTS", (b"\xff",))
    store = store_to_export(tmp_path / "store", fields=["bin"])
    done = vqtok_export(store, tmp_path / "out", "--format", "parquet")
    assert done.exit_code == 1
    assert "field bin of 'part0/0-ü' is not UTF-8" in done.stderr
    assert not (tmp_path / "out").exists()
    done = vqtok_export(store, tmp_path / "out", "--format", "parquet", "--binary", "txt")
    assert "--binary txt: no such field in the store; there is bin" in done.stderr
