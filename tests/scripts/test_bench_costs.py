"""`make bench-costs`: the store of hard links, and what is measured on it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from costs import reading
from costs.linked import key_of, write_linked_store
from fixtures_store import cold
from support import ROOT

from pipeline.files import LocalFiles
from pipeline.jobs.showing import job as show
from pipeline.store import TokenStore
from pipeline.store.arrays.parts import Part
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import committed_parts, read_commits
from pipeline.store.schema.manifest import PartRecord

pytest_plugins = ["fixtures_store"]


def test_a_store_of_hard_links_is_a_store(tmp_path: Path) -> None:
    write_linked_store(tmp_path / "store", parts=4, rows=50, tokens=16)
    store, files = TokenStore(tmp_path / "store"), LocalFiles(tmp_path / "store")
    tokens = store.read(slice(None)).tokens.numpy().reshape(4, 50, 16)
    assert (tokens[0] == tokens[1]).all() and (tokens[0] == tokens[2]).all() and (tokens[0] != tokens[3]).any()
    assert store.keys.find(key_of(0, 7)).tolist() == [7, 57, 107]
    assert store.keys.find(key_of(3, 7)).tolist() == [157]
    assert [row.source for row in show.run(store.root, key_of(0, 7)).rows] == [f"part-00000{n}.tar" for n in range(3)]
    birth = read_birth(files)
    for record in read_commits(files, committed_parts(files)):
        part = Part(files, birth, PartRecord.of(record, since=0))
        assert part.digest() == record.content_digest
    inodes = [{path.stat().st_ino for path in files_of(tmp_path / "store", number)} for number in range(4)]
    assert inodes[0] == inodes[1] == inodes[2] and not inodes[0] & inodes[3]
    assert np.diff(store.part_starts).tolist() == [50] * 4


def files_of(store: Path, part: int) -> list[Path]:
    return [path for path in store.glob(f"tokens.zarr/parts/part-{part:06d}.*/**/*") if path.is_file()]


def test_reading_it_is_measured(tmp_path: Path) -> None:
    write_linked_store(tmp_path / "store", parts=3, rows=600, tokens=16)
    loaded = reading.load(str(tmp_path / "store"))
    assert sorted(name for name, figure in loaded.items() if figure > 0) == ["first", "open", "rate", "resume"]
    found = [reading.find(str(tmp_path / "store"), key) for key in (key_of(2, 9), key_of(0, 9), "nobody")]
    assert [figures["rows"] for figures in found] == [1, 2, 0]


@pytest.mark.slow
def test_the_command_prints_a_table() -> None:
    done = cold(
        sys.executable, ROOT / "scripts/benchmarks/bench_costs.py", "rows", "--parts=3", "--rows=600", "--tokens=16"
    )
    assert done.status == 0, done.err
    cells = [line.strip("| ").split(" | ") for line in done.out.splitlines()]
    assert [re.sub(r"[\d,.]+", "0", cell[-1]) for cell in cells[1:5]] == ["0 s", "0 s", "0 rows/s", "0 s"]
    assert cells[0] == ["1,800 rows in 3 parts"]
    assert [name for name, _ in cells[5:8]] == [f"`store.keys.find`, rows found: {found}" for found in (1, 2, 0)]
    assert all(re.fullmatch(r"[\d.]+ s, [\d.]+ s of CPU, \+\d+ MiB", figures) for _, figures in cells[5:8])
    assert re.fullmatch(r"[\d.]+ s, \d+ MiB", cells[8][1])
