"""`vqtok show`: one sample by its key, wherever it stands."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import (
    COLLECTION,
    ROWS,
    Job,
    begin_store,
    cold_python,
    finish_store,
    make_birth,
    make_shard,
    store_of_rows,
    vqtok,
)

from pipeline.errors import CorruptStore, StoreError
from pipeline.files import LocalFiles
from pipeline.jobs.showing import job as show
from pipeline.records import Geometry
from pipeline.source.find import part_name
from pipeline.store import TokenStore
from pipeline.store.writing.writer import commit_part

pytest_plugins = ["fixtures_store"]


def shown(store: Path, *words: str) -> str:
    """What the command prints."""
    done = vqtok("show", store, *words, folder=store.parent / "output").wait()
    assert (done.status, done.err) == (0, "")
    return done.out


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


def test_a_row_as_people_read_it(finished: Job) -> None:
    text = shown(finished.store, "000101")
    (row,) = show.run(str(finished.store), "000101").rows
    lines = text.splitlines()
    assert lines[:6] == [
        "000101",
        f"  row {row.store_row} of the store, row 1 of {part_name('train-0001.tar')}",
        "  from train-0001.tar, sample 1",
        "  label 1",
        "  txt number 101, größer",
        "  24 tokens, layout quadrants of a grid of 4 x 6",
    ]
    corners = [line for line in lines if "block" in line]
    assert corners == [
        "  block 0, grid rows 0 to 1, columns 0 to 2",
        "  block 1, grid rows 0 to 1, columns 3 to 5",
        "  block 2, grid rows 2 to 3, columns 0 to 2",
        "  block 3, grid rows 2 to 3, columns 3 to 5",
    ]
    printed = [[int(token) for token in line.split()] for line in lines if re.fullmatch(r"    [ \d]+", line)]
    assert printed == [block[start : start + 3] for block in row.blocks for start in (0, 3)]
    assert len({len(line) for line in lines if line.startswith("    ")}) == 1  # columns are aligned


def test_missing_and_empty_members_are_told_apart(finished: Job) -> None:
    assert "\n  txt (none)\n" in shown(finished.store, "000003")
    assert "\n  txt (empty)\n" in shown(finished.store, "000001")
    assert "\n  label (none)\n" in shown(finished.store, "no-label")


def test_a_reject_tells_its_stage_and_reason(finished: Job) -> None:
    assert shown(finished.store, "bad-label") == (
        "bad-label\n  rejected at stage label: .cls holds b'cat', not an integer\n"
        f"  from train-0003.tar, sample 15; part {part_name('train-0003.tar')}\n"
    )


def test_the_command_prints_json(finished: Job) -> None:
    answer = json.loads(shown(finished.store, "--json", "last"))
    (row,) = answer.pop("rows")
    assert answer == {"store": str(finished.store), "key": "last", "rejects": []}
    assert list(row) == [*show.FoundRow.__dataclass_fields__]
    assert (row["source"], row["source_index"], row["label"], row["fields"]) == ("train-0003.tar", 16, 3, {"txt": None})
    assert [len(block) for block in row["blocks"]] == [6, 6, 6, 6]
    (reject,) = json.loads(shown(finished.store, "--json", "cut"))["rejects"]
    assert list(reject) == [*show.FoundReject.__dataclass_fields__]
    assert (reject["source_index"], reject["stage"]) == (9, "decode")


def test_a_key_that_nobody_has_says_where_it_looked(finished: Job) -> None:
    for key, hint in {
        "nobody": "",
        "000101.jpg": "; a key ends before the first dot of the file's name: try '000101'",
        "folder/nested.v1.jpg": "; a key ends before the first dot of the file's name: try 'folder/nested'",
        ".hidden": "",
        "nested": "",
        "00010": "",
        "": "",
        "00": "",
    }.items():
        done = vqtok("show", finished.store, key, folder=finished.output).wait()
        assert (done.status, done.out) == (1, "")
        assert done.err == (
            f"vqtok: {finished.store}: no sample has the key {key!r}, of {ROWS + 7} in 6 committed parts{hint}; "
            "a source shard that is still pending may hold it (vqtok status)\n"
        )


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    done = vqtok("show", tmp_path / "nowhere", "key", folder=tmp_path / "output").wait()
    assert (done.status, done.out) == (1, "")
    assert "not a token store" in done.err


# --- stores of given rows ---------------------------------------------------------------------------------


def store_of_keys(
    folder: Path, parts: dict[str, list[str]], fields: dict[str, list[bytes | None]] | None = None
) -> Path:
    """A finished store of parts with these keys."""
    birth = make_birth(fields=sorted(fields or {}))
    files = begin_store(folder, birth)
    for part, keys in parts.items():
        shard = make_shard(birth, part, len(keys), fields, rejects=1)
        shard.keys[:] = keys
        commit_part(files, birth, shard)
    finish_store(files, birth)
    return folder


@pytest.mark.parametrize("key", ["-h", "--json", "-", "a/b/c", "größer/猫", "with space", "'quoted\"", "a\nb", "*"])
def test_unusual_keys_are_found(tmp_path: Path, key: str) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["x", key, "y"]})
    assert shown(store, "--", key).splitlines()[:2] == [key.replace("\n", "\\n"), "  row 1 of the store, row 1 of p"]


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
    assert shown(store, "a").count("\n\na\n") == 2
    assert [row["store_row"] for row in json.loads(shown(store, "--json", "a"))["rows"]] == [0, 2, 5]
    both = show.run(str(store), "bad0")
    assert [reject.part for reject in both.rejects] == ["p", "q", "r", "s"]
    assert [reject.source_index for reject in both.rejects] == [3, 1, 3, 0]


def test_binary_members_do_no_harm(tmp_path: Path) -> None:
    picture = bytes(range(128, 256))
    fields: dict[str, list[bytes | None]] = {
        "bin": [picture, b"\xff"],
        "txt": [b"\x1b[2J", "größer\nzwei".encode()],
    }
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b"]}, fields)
    text = shown(store, "a")
    assert f"\n  bin (128 bytes, not text) {picture[:32].hex(' ')}…\n  txt \\x1b[2J\n" in text
    assert "\n  bin (1 bytes, not text) ff\n  txt größer\\nzwei\n" in shown(store, "b")
    (row,) = json.loads(shown(store, "--json", "a"))["rows"]
    assert row["fields"] == {"bin": {"base64": base64.b64encode(picture).decode()}, "txt": {"text": "\x1b[2J"}}


def test_parts_behind_the_manifest_have_no_row_in_the_store_yet(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a"], "q": ["b", "c"]})
    files, birth = LocalFiles(store), make_birth()
    commit_part(files, birth, make_shard(birth, "between", 1))
    (row,) = show.run(str(store), "between/0-ü").rows
    assert (row.store_row, row.part_row) == (None, 0)
    assert "  not in the manifest yet, row 0 of between" in shown(store, "between/0-ü")
    assert [found.store_row for found in show.run(str(store), "c").rows] == [2]
    (store / "manifest.json").unlink()
    assert [found.store_row for found in show.run(str(store), "c").rows] == [None]


def test_a_layout_that_nobody_knows_is_printed_in_lines(tmp_path: Path) -> None:
    store = store_of_rows(tmp_path / "store", [2], block_lengths=(3, 20))
    text = shown(store, "part000/1-ü")
    assert "\n  23 tokens, layout invented of a grid of 1 x 23\n  block 0, 3 tokens\n" in text
    lines = text.splitlines()
    assert [len(line.split()) for line in lines[lines.index("  block 1, 20 tokens") + 1 :]] == [16, 4]


@pytest.mark.parametrize(
    ("layout", "grid", "lengths", "rectangles"),
    [
        ("raster", (2, 3), (6,), [(range(2), range(3))]),
        ("diagonal", (3, 5), (2, 6), [(range(1), range(2)), (range(1, 3), range(2, 5))]),
        ("quadrants", (1, 3), (0, 0, 1, 2), [None, None, (range(1), range(1)), (range(1), range(1, 3))]),
        ("quadrants", (2, 2), (4,), [None]),  # not what this version calls quadrants
        ("spiral", (2, 2), (4,), [None]),
    ],
)
def test_blocks_that_are_rectangles_of_the_grid(
    layout: str, grid: tuple[int, int], lengths: tuple[int, ...], rectangles: list[tuple[range, range] | None]
) -> None:
    geometry = Geometry(image_size=(8, 8), grid=grid, layout=layout, block_lengths=lengths, decodable=False)
    assert [show._rectangle(block, geometry) for block in range(len(lengths))] == rectangles


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b"]})
    (chunk,) = store.glob("tokens.zarr/parts/p.*/key/data/c/0")
    chunk.unlink()
    with pytest.raises(CorruptStore, match="key/data: cannot be read: its chunk file is missing"):
        show.run(str(store), "a")
    with pytest.raises(CorruptStore):  # what cannot be read is not said to be without the key
        show.run(str(store), "longer")


def test_it_needs_no_torch(finished: Job) -> None:
    code = "import sys; from pipeline.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = cold_python(code, "show", finished.store, "000101")
    assert (done.out.splitlines()[-1], done.err) == ("False", "")


def test_a_sample_is_read_out_of_many(tmp_path: Path) -> None:
    store = store_of_rows(tmp_path / "store", [3000, 0, 5000])
    (row,) = show.run(str(store), "part002/4321-ü").rows
    assert (row.store_row, row.part_row) == (7321, 4321)
    assert np.concatenate(row.blocks).tolist() == np.concatenate(TokenStore(store)[7321].idx_l).tolist()
