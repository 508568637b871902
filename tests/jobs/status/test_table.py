"""The table of `vqtok status`."""

import pytest
from fixtures_store import Job, vqtok

from pipeline.jobs.status import job as status
from pipeline.jobs.status.table import duration, status_table

pytest_plugins = ["fixtures_store"]


def test_many_rows_of_a_section_are_cut_short(finished: Job) -> None:
    result = status.run(finished.config())
    object.__setattr__(result, "rejects", result.rejects * 3)
    assert status_table(result).endswith("\n… and 11 more; --json has them all")


def test_a_table_that_is_piped_is_whole(finished: Job) -> None:
    done = vqtok("status", "--config", finished.file, folder=finished.output, environment={"COLUMNS": "40"}).wait()
    assert "several image members (.jpg, .png); name one in source.image" in done.out
    assert "\x1b" not in done.out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h")],
)
def test_spans_of_time_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
