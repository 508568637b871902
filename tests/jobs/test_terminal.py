"""Text for terminals: columns stand below each other, and nothing is wider than the terminal."""

import io
import os
import pty
import select

import pytest

from pipeline.jobs.terminal import InPlace, aligned, cut, fitted, width_of


def test_width_counts_columns_and_not_characters() -> None:
    assert [width_of(text) for text in ("abc", "ö", "o\u0308", "猫猫", "")] == [3, 1, 1, 4, 0]


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("猫猫猫", 5, "猫猫…"),
        ("猫猫猫", 4, "猫…"),
        ("ab", 1, "…"),
        ("", 3, ""),
    ],
)
def test_what_does_not_fit_is_cut(text: str, columns: int, shown: str) -> None:
    assert cut(text, columns) == shown


def test_columns_are_aligned_and_numbers_stand_to_the_right() -> None:
    rows = [["name", "count", "why"], ["a", "1,000", "x"], ["猫", "7", ""], ["abcdef", "12", "y"]]
    assert aligned(rows) == [
        "name    count  why",
        "a       1,000  x",
        "猫          7",
        "abcdef     12  y",
    ]


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w", closefd=False) as terminal:
            assert fitted("x" * 20 + "\nshort", terminal) == "x" * 9 + "…\nshort"
        assert fitted("x" * 20, io.StringIO()) == "x" * 20
    finally:
        os.close(ours)
        os.close(theirs)


def test_texts_follow_each_other_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    screen = InPlace(stream)
    screen.show("one\ntwo")
    screen.show("three")
    assert stream.getvalue() == "one\ntwo\nthree\n"


def test_a_shorter_text_leaves_nothing_of_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "4")
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w", closefd=False) as terminal:
            screen = InPlace(terminal)
            screen.show("a\n" + "b" * 20 + "\nc\nd\ne")  # neither as wide nor as high
            screen.show("f")
        expected = f"\ra\x1b[K\n{'b' * 8}…\x1b[K\n…\x1b[K\n\x1b[J\x1b[3A\rf\x1b[K\n\x1b[J"
        sent = b""
        while len(sent.decode(errors="ignore").replace("\r\n", "\n")) < len(expected):  # it comes piece by piece
            assert select.select([ours], [], [], 10)[0], sent
            sent += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert sent.decode().replace("\r\n", "\n") == expected
