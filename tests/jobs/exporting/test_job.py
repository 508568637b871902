"""Exports that are interrupted, refused, or written by several processes."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fixtures_exports import GRID, ROWS, export, grids, store_to_export, vqtok_export
from fixtures_store import Halt, all_files, store_of_rows, vqtok
from support import file_system, sampled

from pipeline.jobs.exporting.disk import RowWriter
from pipeline.records import Geometry
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_exports"]

FORMATS = {
    "parquet": ("--rows-per-file", "10"),
    "megatron": ("--eos", "2000"),
    "npy": (),
    "llamagen": (),
    "webdataset": ("--rows-per-file", "10"),
    "jsonl": ("--rows-per-file", "10"),
    "bin": ("--rows-per-file", "10"),
}


def test_export_json_says_what_is_there(exported_store: Path, tmp_path: Path) -> None:
    store = TokenStore(exported_store)
    done = vqtok_export(exported_store, tmp_path / "out", "--format", "bin", "--eol", "1000", "--offset", "0")
    assert done.stdout == f"{tmp_path}/out: {ROWS} rows, format bin, raster order\n6 of them have no label (-1)\n"
    assert json.loads((tmp_path / "out/export.json").read_text()) == {
        "format": "bin",
        "rows": ROWS,
        "unlabelled": 6,
        "order": "raster",
        "view": 0,
        "dtype": "uint16",
        "sequence_length": 18,
        "ids": {"tokens": [0, 999], "eol": [1000, 1000]},
        "files": {"part-00000.bin": ROWS},
        "options": {"eol": 1000},
        "store": {
            "content_digest": store.content_digest,
            "vocabulary": store.vocabulary,
            "rows": ROWS,
            "views": 1,
            "vocab_size": 1000,
            "image_size": [12, 20],
            "grid": list(GRID),
            "layout": "quadrants",
            "block_lengths": [2, 3, 4, 6],
        },
    }


def test_orders(exported_store: Path, tmp_path: Path) -> None:
    blocks = export(exported_store, tmp_path / "blocks", "--format", "npy", "--order", "blocks")
    expected = TokenStore(exported_store).read(slice(None)).tokens.numpy()
    assert np.array_equal(np.load(blocks / "tokens.npy"), expected)
    raster = export(exported_store, tmp_path / "raster", "--format", "npy", "--order", "raster")
    assert np.array_equal(np.load(raster / "tokens.npy"), grids(exported_store)[:, 0])
    assert not np.array_equal(expected, grids(exported_store)[:, 0])
    other = store_of_rows(tmp_path / "store", [3])  # of a layout that covers no grid
    assert (
        json.loads((export(other, tmp_path / "other", "--format", "npy") / "export.json").read_text())["order"]
        == "blocks"
    )
    done = vqtok_export(other, tmp_path / "out", "--format", "npy", "--order", "raster")
    assert done.exit_code == 2
    assert "--order raster: layout 'invented' is none that this version turns into a grid" in done.stderr


def test_scales_have_no_grid_and_no_lines(tmp_path: Path) -> None:
    scales = Geometry(image_size=(12, 12), grid=(3, 3), layout="multiscale", block_lengths=(1, 4, 9), decodable=True)
    store = store_of_rows(tmp_path / "store", [3], geometry=scales)
    asked = vqtok_export(store, tmp_path / "out", "--format", "npy", "--order", "raster")
    assert "3 scales, and no single one; leave it out, and tokens come block by block: 1, 4 and 9 of" in asked.stderr
    view = vqtok_export(store, tmp_path / "out", "--format", "npy", "--view", "1")
    assert "store has one view of each image: leave it out" in view.stderr
    lines = vqtok_export(store, tmp_path / "out", "--format", "megatron", "--eol", "5000")
    assert "have no lines; leave it out\n" in lines.stderr
    assert {asked.exit_code, view.exit_code, lines.exit_code} == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--format", "npy", "--offset", "3"),
            "--offset: the format npy has no place for it; these have: megatron, bin",
        ),
        (("--format", "megatron", "--rows-per-file", "3"), "--rows-per-file: the format megatron has no place for it"),
        (
            ("--format", "megatron"),
            "each row has 3 views, for which the format megatron has no place; take one of them",
        ),
        (("--format", "jsonl", "--view", "all"), "each row has 3 views, for which the format jsonl has no place"),
        (("--format", "npy", "--view", "3"), "views has views 0 to 2"),
        (("--format", "npy", "--view", "some"), "'some' is neither the number of a view, nor 'all' or 'rows'"),
        (("--format", "cbor"), "'cbor' is not one of 'llamagen'"),
    ],
)
def test_what_a_format_has_no_place_for(
    store_of_views: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = vqtok_export(store_of_views, tmp_path / "out", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_complete(tmp_path: Path) -> None:
    store = store_to_export(tmp_path / "store", finished=False)
    done = vqtok_export(store, tmp_path / "out", "--format", "npy")
    assert done.exit_code == 1
    assert "export what is committed with --partial" in done.stderr
    out = export(store, tmp_path / "out", "--format", "npy", "--partial")
    assert len(np.load(out / "tokens.npy")) == ROWS
    assert json.loads((out / "export.json").read_text())["options"] == {"partial": True}


def test_a_store_without_rows(tmp_path: Path) -> None:
    done = vqtok_export(store_of_rows(tmp_path / "store", []), tmp_path / "out", "--format", "npy")
    assert done.exit_code == 1
    assert "has no rows to export" in done.stderr


def test_damage_is_named_and_leaves_no_export(tmp_path: Path) -> None:
    store = store_to_export(tmp_path / "store")
    chunk = next(path for path in store.glob("tokens.zarr/parts/part2.*/tokens/c/*/*"))
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    done = vqtok_export(store, tmp_path / "out", "--format", "jsonl")
    assert done.exit_code == 1
    assert "part2" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sampled("jsonl", *(name for name in FORMATS if name != "jsonl")))
def test_killed_again_and_again_it_ends_with_the_same_bytes(exported_store: Path, tmp_path: Path, name: str) -> None:
    options = ("--format", name, *FORMATS[name])
    expected = all_files(export(exported_store, tmp_path / "expected", *options))
    out = tmp_path / "out"
    for count in (2, 6, 12, 18, 25):
        halt = Halt("any", "out.partial", count)
        done = vqtok("export", exported_store, out, *options, folder=tmp_path / "output", halt=halt).wait()
        assert done.status == -9, done.err
        if out.exists():  # killed while it tidied up
            break
    else:
        export(exported_store, out, *options)
    assert all_files(out) == expected


def test_killed_behind_its_last_step_it_is_whole(exported_store: Path, tmp_path: Path) -> None:
    halt = Halt("shutil.rmtree", "out.partial", 2)  # the first one empties what was unfinished
    options = ("--format", "npy")
    done = vqtok("export", exported_store, tmp_path / "out", *options, folder=tmp_path / "output", halt=halt).wait()
    assert done.status == -9, done.err
    assert (tmp_path / "out/export.json").exists()
    assert (tmp_path / "out.partial").exists()
    done = vqtok_export(exported_store, tmp_path / "out", *options)
    assert done.exit_code == 2
    assert "is there already, a whole export" in done.stderr
    assert not (tmp_path / "out.partial").exists()


def test_processes_write_the_same_bytes(exported_store: Path, tmp_path: Path) -> None:
    options = ("--format", "parquet", "--rows-per-file", "5")
    one = export(exported_store, tmp_path / "one", *options)
    two = export(exported_store, tmp_path / "two", *options, "--processes", "2")
    assert all_files(one) == all_files(two)
    assert len(all_files(one)) == 9


def test_errors_of_processes_are_told(exported_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    store = store_to_export(tmp_path / "store")
    chunk = next(path for path in store.glob("tokens.zarr/parts/part2.*/tokens/c/*/*"))
    chunk.write_bytes(chunk.read_bytes()[:-9])
    done = vqtok_export(store, out, "--format", "jsonl", "--rows-per-file", "5", "--processes", "2")
    assert done.exit_code == 1
    assert "part2" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(("name", "options"), [("npy", ()), ("jsonl", ("--rows-per-file", "5"))])
def test_a_full_disk(exported_store: Path, tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    options = ("--format", name, *options)
    expected = all_files(export(exported_store, tmp_path / "expected", *options))
    with file_system(tmp_path / "small", megabytes=1) as folder:
        filler = folder / "filler"
        room = os.statvfs(folder)
        filler.write_bytes(bytes(room.f_bavail * room.f_frsize - 6 * 4096))
        done = vqtok_export(exported_store, folder / "out", *options)
        assert done.exit_code == 1
        assert "No space left on device; what has been written stays in" in done.stderr
        assert not (folder / "out").exists()
        filler.unlink()
        assert all_files(export(exported_store, folder / "out", *options)) == expected


@pytest.mark.parametrize(("name", "module"), [("npy", "arrays"), ("megatron", "megatron")])
def test_pieces_that_are_written_stay(
    exported_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    """Of a large file no more than what is missing is written again."""
    expected = all_files(export(exported_store, tmp_path / "expected", "--format", name))
    monkeypatch.setattr(f"pipeline.jobs.exporting.formats.{module}._PIECE_BYTES", 300)  # 10 rows
    write, rows = RowWriter.write, list[int]()

    def write_some(writer: RowWriter, first: int, some: np.ndarray) -> None:
        if writer.file.path.name.startswith("tokens"):
            rows.append(first)
        if rows == [0, 10, 20]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, first, some)

    monkeypatch.setattr(RowWriter, "write", write_some)
    done = vqtok_export(exported_store, tmp_path / "out", "--format", name)
    assert (done.exit_code, rows) == (1, [0, 10, 20])
    assert all_files(export(exported_store, tmp_path / "out", "--format", name)) == expected
    assert rows == [0, 10, 20, 20, 30]
