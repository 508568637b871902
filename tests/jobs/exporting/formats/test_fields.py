"""Kept members, as formats write them."""

from pipeline.jobs.exporting.formats.fields import names_beside


def test_names_that_are_taken_are_lengthened() -> None:
    assert names_beside(["key"], ["txt", "key"]) == {"txt": "txt", "key": "kept_key"}
    assert names_beside(["key"], ["key", "kept_key"]) == {"key": "kept_kept_key", "kept_key": "kept_key"}
    assert names_beside(["key"], []) == {}
