"""What is found of a key: rows and rejects of all parts."""

import base64
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import COLLECTION, Job, make_birth, make_shard, store_of_keys, store_of_rows

from pipeline.errors import StoreError
from pipeline.files import LocalFiles
from pipeline.jobs.showing import job as show
from pipeline.jobs.showing.text import as_text
from pipeline.source.find import part_name
from pipeline.store import TokenStore
from pipeline.store.writing.writer import commit_part

pytest_plugins = ["fixtures_store"]


def test_every_row_and_every_reject_is_found(finished: Job) -> None:
    store = TokenStore(finished.store)
    rejected = 0
    for path, samples in COLLECTION.items():
        for index, (key, members) in enumerate(samples):
            found = show.run(str(finished.store), key)
            if found.rejects:
                (reject,) = found.rejects
                assert (reject.source, reject.source_index, reject.part) == (path, index, part_name(path))
                rejected += 1
                continue
            (row,) = found.rows
            assert (row.source, row.source_index, row.part) == (path, index, part_name(path))
            assert row.store_row is not None
            sample = store[row.store_row]
            assert sample.key == key
            assert row.blocks == [block.tolist() for block in sample.idx_l]
            assert (-1 if row.label is None else row.label) == sample.label
            assert row.fields == {"txt": members.get("txt")}
    assert rejected == 7


def test_a_key_that_is_no_text_is_not_found(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["ÿ", "x"]})
    with pytest.raises(StoreError, match=r"no sample has the key '\\udcff'"):
        show.run(str(store), "\udcff")


def test_keys_are_compared_whole(tmp_path: Path) -> None:
    """Behind each other `ab`, `abc`, `a`, `ca`, `bca` hold every one of these keys more than once."""
    keys = ["ab", "abc", "a", "ca", "bca", "bc", "aa"]
    store = store_of_keys(tmp_path / "store", {"p": keys})
    for row, key in enumerate(keys):
        assert [found.part_row for found in show.run(str(store), key).rows] == [row]
    with pytest.raises(StoreError):
        show.run(str(store), "cb")


def test_a_key_that_repeats_is_found_everywhere(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b", "a"], "q": ["c"], "r": ["d", "a", "bad3"], "s": []})
    rows = show.run(str(store), "a").rows
    assert [(row.part, row.part_row, row.store_row) for row in rows] == [("p", 0, 0), ("p", 2, 2), ("r", 1, 5)]
    assert TokenStore(store).keys.find("a").tolist() == [0, 2, 5]
    assert [row["store_row"] for row in show.run(str(store), "a").to_json()["rows"]] == [0, 2, 5]
    both = show.run(str(store), "bad0")
    assert [reject.part for reject in both.rejects] == ["p", "q", "r", "s"]
    assert [reject.source_index for reject in both.rejects] == [3, 1, 3, 0]


def test_members_that_are_not_text_are_base64_in_json(tmp_path: Path) -> None:
    picture = bytes(range(128, 256))
    fields: dict[str, list[bytes | None]] = {"bin": [picture, b"\xff"], "txt": [b"\x1b[2J", None]}
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b"]}, fields)
    first, second = (show.run(str(store), key).to_json()["rows"][0]["fields"] for key in "ab")
    assert first == {"bin": {"base64": base64.b64encode(picture).decode()}, "txt": {"text": "\x1b[2J"}}
    assert second == {"bin": {"base64": "/w=="}, "txt": None}


def test_parts_behind_the_manifest_have_no_row_in_the_store_yet(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a"], "q": ["b", "c"]})
    files, birth = LocalFiles(store), make_birth()
    commit_part(files, birth, make_shard(birth, "between", 1))
    (row,) = show.run(str(store), "between/0-ü").rows
    assert (row.store_row, row.part_row) == (None, 0)
    assert [found.store_row for found in show.run(str(store), "c").rows] == [2]
    (store / "manifest.json").unlink()
    assert [found.store_row for found in show.run(str(store), "c").rows] == [None]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b"]})
    (chunk,) = store.glob("tokens.zarr/parts/p.*/key/data/c/0")
    chunk.unlink()
    for key in ("a", "longer"):  # what cannot be read is not said to be without the key
        with pytest.raises(StoreError, match=r"not all could be read: .*key/data: .* its chunk file is missing"):
            show.run(str(store), key)


def test_a_damaged_part_hides_no_other(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b"], "q": ["a"], "r": ["a"]})
    next(store.glob("tokens.zarr/parts/p.*/key/data/c/0")).unlink()
    next(store.glob("rejects/q.*")).write_text("[]\n")
    found = show.run(str(store), "a")
    assert [(row.part, row.store_row) for row in found.rows] == [("r", 3)]
    assert ["parts/p." in message or "rejects/q." in message for message in found.damaged] == [True, True]
    (store / "manifest.json").write_text("{")
    found = show.run(str(store), "a")
    assert [(row.part, row.store_row) for row in found.rows] == [("r", None)]
    assert len(found.damaged) == 3
    for part in "pqr":
        (store / f"commits/{part}.json").write_text("{")
    with pytest.raises(StoreError, match=r"(?s)manifest\.json: not a manifest.*commits/r\.json: not a commit record"):
        show.run(str(store), "a")


def test_a_sample_is_read_out_of_many(tmp_path: Path) -> None:
    store = store_of_rows(tmp_path / "store", [3000, 0, 5000])
    (row,) = show.run(str(store), "part002/4321-ü").rows
    assert (row.store_row, row.part_row) == (7321, 4321)
    assert np.concatenate(row.blocks).tolist() == np.concatenate(TokenStore(store)[7321].idx_l).tolist()


def test_every_view_of_a_row_is_found(tmp_path: Path) -> None:
    path = store_of_rows(tmp_path / "store", [3, 4], views=2, features=("views",))
    store = TokenStore(path)
    key = store.keys[4]
    (row,) = show.run(str(path), key).rows
    tokens, recorded = store.read([4], view="all").tokens[0].tolist(), store.views_of(np.array([4]))
    assert [view.blocks for view in row.views] == [[view[:3], view[3:]] for view in tokens]
    assert [view.box for view in row.views] == recorded.box[0].tolist()
    assert [view.flip for view in row.views] == recorded.flip[0].astype(bool).tolist()
    assert row.blocks == row.views[0].blocks
    json = show.run(str(path), key).to_json()["rows"][0]
    assert json["views"][1] == {"box": row.views[1].box, "flip": row.views[1].flip, "blocks": row.views[1].blocks}
    lines = as_text(show.run(str(path), key)).splitlines()
    box, mirrored = row.views[1].box, ", mirrored" if row.views[1].flip else ""
    assert (
        f"  view 1, {box[2]} x {box[3]} pixels from row {box[0]}, column {box[1]} of the resized image{mirrored}"
        in lines
    )
    assert "  8 tokens a view, layout invented of a grid of 1 x 8" in lines
    assert sum("block 0" in line for line in lines) == 2


def test_a_store_without_views_says_nothing_of_them(finished: Job) -> None:
    assert "views" not in show.run(str(finished.store), "000101").to_json()["rows"][0]
