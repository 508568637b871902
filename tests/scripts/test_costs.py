"""What bench_costs.py counts of handing out source shards."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from costs.calls import MARKER, NoStrace, count_calls
from costs.far_reading import reading
from costs.handing_out import handout
from costs.requests import START_UP, Server
from costs.starting import IMPORTS, WORK, measure
from fixtures_store import Job
from support import ROOT, import_path

from pipeline.files import LocalFiles
from pipeline.store.schema.commits import committed_parts

pytest_plugins = ["fixtures_store"]


@pytest.mark.slow
def test_a_short_job_is_told_apart_into_imports_and_work(job: Job) -> None:
    seconds = measure(job.file)
    assert [*seconds] == [*IMPORTS, WORK]
    assert all(part > 0 for part in seconds.values())
    assert len(job.commits) == 6


def test_the_stub_commits_every_part_and_its_calls_are_counted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "costs.stub", str(tmp_path / "store"), "12", "3"]
    try:
        calls, elsewhere = count_calls(
            command, environment={**os.environ, "PYTHONPATH": import_path(ROOT / "scripts/benchmarks")}
        )
    except NoStrace:
        pytest.skip("no strace here")
    assert len(committed_parts(LocalFiles(tmp_path / "store"))) == 12
    assert elsewhere == Counter()
    assert calls["link"] >= 24  # a claim and a commit for each
    assert 24 * 12 <= calls["fsync"] <= 26 * 12
    assert calls.total() < 200 * 12  # imports and the warm-up come before the marker


def test_without_strace_the_other_figures_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(handout)
    assert done.exit_code == 0
    assert done.output.endswith("left out: strace is not installed, so system calls cannot be counted\n")


def test_calls_are_counted_from_the_marker_on_and_by_place(tmp_path: Path) -> None:
    before, inside_and_out = "os.stat('/')", f"os.stat('{tmp_path}/.'); os.stat('/'); os.mkdir('{tmp_path}/x')"
    code = f"import os; {before}; os.path.exists({MARKER!r}); {inside_and_out}"
    try:
        inside, elsewhere = count_calls([sys.executable, "-S", "-E", "-c", code], tmp_path)
    except NoStrace:
        pytest.skip("no strace here")
    assert inside == {"stat": 1, "mkdir": 1}
    assert elsewhere["stat"] >= 1


def test_requests_are_told_apart_also_where_the_server_colours_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b'127.0.0.1 - - [x] "PUT /costs/before HTTP/1.1" 200 -\n')
    with Server(0, log).counting() as counted, log.open("ab") as lines:
        lines.write(b'127.0.0.1 - - [x] "GET /costs?list-type=2&prefix=a/ HTTP/1.1" 200 -\n')
        lines.write(b'127.0.0.1 - - [x] "GET /costs/a/b HTTP/1.1" 200 -\n')
        lines.write(b'127.0.0.1 - - [x] "\x1b[33mHEAD /costs/a/b HTTP/1.1\x1b[0m" 404 -\n')
        lines.write(b'127.0.0.1 - - [x] "POST /costs?delete HTTP/1.1" 200 -\nsomething else\n')
        lines.write(b'127.0.0.1 - - [x] "GET /costs/s/store.json HTTP/1.1" 200 -\n')
        lines.write(b'127.0.0.1 - - [x] "GET /costs/s/tokens.zarr/codebook/zarr.json HTTP/1.1" 404 -\n')
        lines.write(b'127.0.0.1 - - [x] "PUT /costs/s/tokens.zarr/parts/p.a/zarr.json HTTP/1.1" 200 -\n')
        lines.write(b'127.0.0.1 - - [x] "GET /costs?list-type=2&prefix=source/ HTTP/1.1" 200 -\n')
        lines.flush()
    assert counted == {"LIST": 1, "GET": 1, "HEAD": 1, "PUT": 1, "DELETE": 1, START_UP: 3}


def test_epochs_from_a_far_server_are_counted_beside_a_download() -> None:
    arguments = "--parts 4 --rows 300 --tokens 16 --latency 0.01 --rounds 1"
    done = CliRunner().invoke(reading, arguments.split(), catch_exceptions=False)
    rows = [line.strip("| ").split(" | ") for line in done.output.splitlines() if line.startswith("| ")]
    requests = {name: int(count) for name, _, count, _ in rows[2:]}
    # store.json and the manifest, then a request for the tokens of each part, or its commit and two files.
    assert requests == {
        "plain download": 4,
        "epoch in order": 6,
        "shuffled epoch": 6,
        "with an empty cache": 14,
        "with a full cache": 2,
        "its next epoch": 0,
    }
