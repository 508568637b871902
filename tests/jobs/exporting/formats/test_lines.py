"""jsonl: read back by lines, as 1d-tokenizer does."""

import json
from pathlib import Path

import numpy as np
from fixtures_exports import VIEWS, export, grids, labels, vqtok_export

pytest_plugins = ["fixtures_exports"]


def read(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]


def test_an_object_on_each_line(exported_store: Path, tmp_path: Path) -> None:
    out = export(exported_store, tmp_path / "out", "--format", "jsonl", "--rows-per-file", "30")
    tokens = grids(exported_store)[:, 0].tolist()
    expected = [{"class_id": label, "tokens": row} for label, row in zip(labels(exported_store), tokens, strict=True)]
    assert read(out) == expected
    assert json.loads((out / "export.json").read_text())["files"] == {"part-00000.jsonl": 30, "part-00001.jsonl": 7}


def test_views_stand_on_lines_one_behind_the_other(store_of_views: Path, tmp_path: Path) -> None:
    out = export(store_of_views, tmp_path / "out", "--format", "jsonl", "--rows-per-file", "10")
    tokens = grids(store_of_views).reshape(-1, 15).tolist()
    found = read(out)
    assert [line["tokens"] for line in found] == tokens
    assert [line["class_id"] for line in found] == np.repeat(labels(store_of_views), VIEWS).tolist()
    assert set(json.loads((out / "export.json").read_text())["files"].values()) == {9, 3}
    done = vqtok_export(store_of_views, tmp_path / "less", "--format", "jsonl", "--rows-per-file", "2")
    assert done.exit_code == 2
    assert "--rows-per-file 2: the 3 views of a row stay in one file; give at least 3" in done.stderr
