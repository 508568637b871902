"""`make bench-export`, on a few rows."""

from pathlib import Path

import bench_export
from click.testing import CliRunner


def test_a_row_for_each_format(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench_export.main, ["--rows", "40", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    titles = [line.split("|")[1].strip() for line in done.output.splitlines()[2:]]
    assert titles == list(bench_export.REQUESTS)
    assert not list(tmp_path.iterdir())
