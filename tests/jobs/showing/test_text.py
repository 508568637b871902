"""What `vqtok show` prints."""

import re
from pathlib import Path

from fixtures_store import Job, store_of_keys, store_of_rows

from pipeline.jobs.showing import job as show
from pipeline.jobs.showing.text import as_text
from pipeline.source.find import part_name

pytest_plugins = ["fixtures_store"]


def shown(store: Path, key: str) -> str:
    """The printed lines."""
    return as_text(show.run(str(store), key)) + "\n"


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
        "bad-label\n  rejected at stage label: .cls holds b'cat', not an integer; the names of classes go into "
        "source.classes\n"
        f"  from train-0003.tar, sample 15; part {part_name('train-0003.tar')}\n"
    )


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


def test_every_place_has_a_paragraph(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a", "b", "a"], "r": ["d", "a", "bad0"]})
    paragraphs = shown(store, "a").split("\n\n")
    assert [paragraph.splitlines()[1] for paragraph in paragraphs] == [
        "  row 0 of the store, row 0 of p",
        "  row 2 of the store, row 2 of p",
        "  row 4 of the store, row 1 of r",
    ]
    assert [paragraph.splitlines()[0] for paragraph in paragraphs] == ["a"] * 3
    row, *rejects = shown(store, "bad0").split("\n\n")
    assert row.splitlines()[1] == "  row 5 of the store, row 2 of r"
    assert [reject.splitlines()[1][:19] for reject in rejects] == ["  rejected at stage"] * 2


def test_a_row_behind_the_manifest_says_so(tmp_path: Path) -> None:
    store = store_of_keys(tmp_path / "store", {"p": ["a"]})
    (store / "manifest.json").unlink()
    assert shown(store, "a").splitlines()[1] == "  not in the manifest yet, row 0 of p"


def test_a_layout_that_nobody_knows_is_printed_in_lines(tmp_path: Path) -> None:
    store = store_of_rows(tmp_path / "store", [2], block_lengths=(3, 20))
    text = shown(store, "part000/1-ü")
    assert "\n  23 tokens, layout invented of a grid of 1 x 23\n  block 0, 3 tokens\n" in text
    lines = text.splitlines()
    assert [len(line.split()) for line in lines[lines.index("  block 1, 20 tokens") + 1 :]] == [16, 4]
