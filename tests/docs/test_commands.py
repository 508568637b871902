"""Simple commands are found in lines of shell code."""

import pytest

from docs.commands import commands_of, is_plain, lines_of


def test_lines_end_where_commands_do() -> None:
    assert lines_of("# a comment\n\nmake sample \\\n  NPROC=2   # don't\nls\n") == [
        "make sample    NPROC=2   # don't",
        "ls",
    ]


@pytest.mark.parametrize(
    ("line", "words", "variables"),
    [
        ("make ar   # slow", [["make", "ar"]], [{}]),
        ("A=1 B='x y' vqtok show S K", [["vqtok", "show", "S", "K"]], [{"A": "1", "B": "x y"}]),
        ("A=1", [[]], [{"A": "1"}]),
        ("make X=1", [["make", "X=1"]], [{}]),  # what follows the command is its own
        ("--x=1 a", [["--x=1", "a"]], [{}]),
        ("a && b | c >d &", [["a"], ["b"], ["c"], ["d"]], [{}, {}, {}, {}]),
        ("x=$(sbatch --array=0-3 f)", [[], ["sbatch", "--array=0-3", "f"]], [{"x": "$"}, {}]),
        (
            "sbatch --wrap '.venv/bin/vqtok verify --config f'",
            [["sbatch", "--wrap", ".venv/bin/vqtok verify --config f"], [".venv/bin/vqtok", "verify", "--config", "f"]],
            [{}, {}],
        ),
    ],
)
def test_commands_of_a_line(line: str, words: list[list[str]], variables: list[dict[str, str]]) -> None:
    found = commands_of(line)
    assert [list(command.words) for command in found] == words
    assert [command.variables for command in found] == variables


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("vqtok tokenize --set source.shards='a-{0..3}.tar'   # {x} $y", True),
        ("make ARGS=\"--set a='*'\"", True),
        ("ls *.tar", False),
        ('echo "$HOME"', False),
        ("a; b", False),
        ("a &", False),
        ("a >b", False),
    ],
)
def test_plain_lines_are_what_bash_takes_as_they_are_written(line: str, plain: bool) -> None:
    assert is_plain(line) == plain


@pytest.mark.parametrize(
    ("line", "launch"), [(".venv/bin/torchrun x", True), ("accelerate launch x", True), ("accelerate env", False)]
)
def test_what_starts_other_commands_is_told(line: str, launch: bool) -> None:
    assert commands_of(line)[0].is_launch == launch
