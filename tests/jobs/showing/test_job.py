"""`vqtok show`, the command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_store import ROWS, Job, cold_python, store_of_keys, vqtok

from pipeline.cli import main
from pipeline.jobs.showing.finding import FoundReject, FoundRow

pytest_plugins = ["fixtures_store"]


def shown(store: Path, *words: str) -> str:
    """What the command prints."""
    done = vqtok("show", store, *words, folder=store.parent / "output").wait()
    assert (done.status, done.err) == (0, "")
    return done.out


def test_the_command_prints_json(finished: Job) -> None:
    answer = json.loads(shown(finished.store, "--json", "last"))
    (row,) = answer.pop("rows")
    assert answer == {"store": str(finished.store), "key": "last", "rejects": [], "damaged": []}
    assert list(row) == [name for name in FoundRow.__dataclass_fields__ if name != "views"]
    assert (row["source"], row["source_index"], row["label"], row["fields"]) == ("train-0003.tar", 16, 3, {"txt": None})
    assert [len(block) for block in row["blocks"]] == [6, 6, 6, 6]
    (reject,) = json.loads(shown(finished.store, "--json", "cut"))["rejects"]
    assert list(reject) == [*FoundReject.__dataclass_fields__]
    assert (reject["source_index"], reject["stage"]) == (9, "decode")


def test_a_key_that_nobody_has_says_where_it_looked(finished: Job) -> None:
    for key, hint in {
        "nobody": "",
        "000101.jpg": "; there is '000101'",
        "./000101.v1.jpg": "; there is '000101'",
        "folder/nested.v1.jpg": "; there is 'folder/nested'",
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


def test_keys_that_differ_in_little_are_named(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["./cat/1", "cat/2", "cat/3.v1", "./cat/3"]})
    for key, near in {
        "cat/1": "'./cat/1'",
        "cat/1.jpg": "'./cat/1'",
        "./cat/2": "'cat/2'",
        "cat/3.v1.jpg": "'./cat/3', 'cat/3.v1'",
        "./cat/3.v1": "'cat/3.v1', './cat/3'",
    }.items():
        done = CliRunner().invoke(main, ["show", str(store), key])
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"no sample has the key {key!r}, of 5 in 1 committed part; there is {near}; " in done.stderr


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    done = vqtok("show", tmp_path / "nowhere", "key", folder=tmp_path / "output").wait()
    assert (done.status, done.out) == (1, "")
    assert "not a token store" in done.err


@pytest.mark.parametrize("key", ["-h", "--json", "-", "a/b/c", "größer/猫", "with space", "'quoted\"", "a\nb", "*"])
def test_unusual_keys_are_found(tmp_path: Path, key: str) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["x", key, "y"]})
    assert shown(store, "--", key).splitlines()[:2] == [key.replace("\n", "\\n"), "  row 1 of the store, row 1 of p"]


def test_it_needs_no_torch(finished: Job) -> None:
    code = "import sys; from pipeline.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = cold_python(code, "show", finished.store, "000101")
    assert (done.out.splitlines()[-1], done.err) == ("False", "")
