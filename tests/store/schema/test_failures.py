"""Failures are notes for people: nothing depends on them, not even on their being readable."""

from pathlib import Path

from pipeline.files import LocalFiles
from pipeline.store.schema.failures import Failure, clear_failure, read_failures, record_failure


def failure(part: str, reason: str = "cut off") -> Failure:
    return Failure(part=part, source=f"{part}.tar", reason=reason, host="here", time="2026-01-01T00:00:00+00:00")


def test_the_last_failure_of_a_part_is_remembered_until_it_is_cleared(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    assert read_failures(files, {"a"}) == []
    for entry in (failure("b"), failure("a"), failure("a", "cut off again"), failure("elsewhere")):
        record_failure(files, entry)
    assert read_failures(files, {"a", "b", "c"}) == [failure("a", "cut off again"), failure("b")]
    clear_failure(files, "a")
    clear_failure(files, "a")
    assert read_failures(files, {"a", "b"}) == [failure("b")]


def test_a_note_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    record_failure(files, failure("a"))
    (tmp_path / "failures/b.json").write_text("{")
    assert read_failures(files, {"a", "b"}) == [failure("a")]
