"""Counting rejects by reason: messages that differ in a value are one reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.jobs.rejects import count_reasons, most_common, pattern_of, read_rejects
from pipeline.records import Reject


def rejects(*reasons: str, stage: str = "decode") -> list[Reject]:
    return [Reject(key=f"key{index}", index=index, stage=stage, reason=reason) for index, reason in enumerate(reasons)]


@pytest.mark.parametrize(
    ("reason", "pattern"),
    [
        (
            "OSError: image file is truncated (12 bytes not processed)",
            "OSError: image file is truncated (… bytes not processed)",
        ),
        ("not an image; starts with b'\\xff\\xd8'", "not an image; starts with …"),
        (r"starts with b'it\'s'", "starts with …"),
        ("""starts with b"it's" or so""", "starts with … or so"),
        (".cls holds b'cat', not an integer", ".cls holds …, not an integer"),
        ("the image's size isn't known", "the image's size isn't known"),
        ("400x300 pixels are more than image.max_pixels = 100,000", "…x… pixels are more than image.max_pixels = …"),
        ("ratio 0.75.", "ratio …."),
        ("no image (JPEG, JPEG2000, TGA) of 2000 bytes", "no image (JPEG, JPEG2000, TGA) of … bytes"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_what_differs_between_messages_of_one_cause_is_left_out(reason: str, pattern: str) -> None:
    assert pattern_of(reason) == pattern


def test_ten_thousand_messages_are_one_line() -> None:
    (reason,) = most_common(
        [count_reasons("a.tar", rejects(*(f"cut after {number} bytes" for number in range(10_000))))]
    )
    assert (reason.reason, reason.samples, reason.source, reason.key) == ("cut after … bytes", 10_000, "a.tar", "key0")


def test_equal_messages_are_shown_as_they_are() -> None:
    counts = [count_reasons(source, rejects("cut after 3 bytes", "cut after 3 bytes")) for source in ("a.tar", "b.tar")]
    (reason,) = most_common(counts)
    assert (reason.reason, reason.samples) == ("cut after 3 bytes", 4)
    (reason,) = most_common([*counts, count_reasons("c.tar", rejects("cut after 4 bytes"))])
    assert (reason.reason, reason.samples) == ("cut after … bytes", 5)


def test_the_most_frequent_come_first_and_stages_stay_apart() -> None:
    counts = [
        count_reasons("a.tar", rejects("one", "two", "two")),
        count_reasons("b.tar", rejects("two", stage="label")),
        count_reasons("c.tar", []),
    ]
    assert [(reason.samples, reason.stage, reason.reason) for reason in most_common(counts)] == [
        (2, "decode", "two"),
        (1, "decode", "one"),
        (1, "label", "two"),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [(None, "missing"), (b"[]", "a line is no reject"), (b"\xff", "a line is no reject"), (b"{}\n", "a line is no")],
)
def test_damaged_rejects_are_named(tmp_path: Path, data: bytes | None, said: str) -> None:
    files = LocalFiles(tmp_path)
    if data is not None:
        files.put("rejects/a.1.jsonl", data)
    with pytest.raises(CorruptStore, match=rf"rejects/a\.1\.jsonl: {said}"):
        read_rejects(files, commit_of("a", 1))
    with pytest.raises(CorruptStore, match=r"rejects/b\.1\.jsonl: missing"):
        read_rejects(files, commit_of("b", 1))
    assert read_rejects(files, commit_of("c", 0)) == []  # there is no file then


def commit_of(part: str, rejected: int) -> Any:
    """What a commit says of its rejects."""
    return SimpleNamespace(part=part, attempt="1", rejected=rejected)
