"""The bill of a job over an object store."""

import pytest
from click.testing import CliRunner
from costs.bill import MEASURED, Bill, bill


def test_what_grows_with_what() -> None:
    small, large = (Bill(1000 * n, 10, 60.0, MEASURED, 28.0) for n in (1, 2))
    for kind, count in small.rows()["source shards"].items():
        assert large.rows()["source shards"][kind] == 2 * count == 2 * 1000 * MEASURED[kind]
    assert small.duration == 6000
    assert small.rows()["heartbeats"] == {"PUT": 8_000}  # after 2, 5, 9.5, 16.25, 26.25 s and so on, by anybody
    crowded = Bill(1000, 20, 60.0, MEASURED, 28.0)
    assert crowded.rows()["heartbeats"] == small.rows()["heartbeats"]
    assert crowded.rows()["workers begin, look and end"]["GET"] == 2 * 28 * 10


def test_the_limit_is_where_the_rate_of_writes_meets_it() -> None:
    made = Bill(1_000_000, 1000, 60.0, MEASURED, 28.0)
    writes = made.per_second["PUT"] + made.per_second["DELETE"]
    assert writes == pytest.approx(1000 / 60 * (MEASURED["PUT"] + MEASURED["DELETE"] + 8), rel=0.01)
    assert made.most_workers == pytest.approx(1000 * 3500 / writes)


def test_a_table_is_printed_of_other_counts_too() -> None:
    done = CliRunner().invoke(bill, ["--each", "PUT=1", "--shards", "1000000", "--seconds", "2"])
    assert done.exit_code == 0, done.output
    assert "| source shards | 0 | 0 | 0 | 1.0 | 0 | 5 |" in done.output
    assert "workers" in done.output.splitlines()[-1]
