"""Patterns stand for files: braces first, then wildcards."""

import re
from pathlib import Path

import pytest
from braceexpand import braceexpand
from support import write_tar

from pipeline.errors import ConfigError
from pipeline.source.shards import patterns
from pipeline.source.shards.patterns import expand, expand_braces, literal_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        write_tar(Path(name), {"a.txt": b""})


def paths(pattern: str) -> list[str]:
    """The files of a pattern, relative to the folder before its first wildcard."""
    files = [Path(found.file) for found in expand(pattern)]
    assert all(found.stat is not None for found in expand(pattern))
    return sorted({file.relative_to(literal_folder(pattern)).as_posix() for file in files})


PATTERNS = [
    ("data/a-{0000..0002}.tar", ["a-0000.tar", "a-0001.tar", "a-0002.tar"]),  # zeros in front stay
    ("data/a-{0002,0000}.tar", ["a-0000.tar", "a-0002.tar"]),
    ("data/a-*.tar", ["a-0000.tar", "a-0001.tar", "a-0002.tar"]),
    ("data/a-000[01].tar", ["a-0000.tar", "a-0001.tar"]),
    ("data/a-000?.tar", ["a-0000.tar", "a-0001.tar", "a-0002.tar"]),
    ("data/{a,b}-*.tar", ["a-0000.tar", "a-0001.tar", "a-0002.tar", "b-0000.tar"]),  # braces before globs
    ("data/deep/*/c.tar", ["one/c.tar", "two/c.tar"]),  # relative to the folder before the wildcard
    ("data/deep/{one,two}/c.tar", ["one/c.tar", "two/c.tar"]),
    ("data/deep/**/c.tar", ["one/c.tar", "two/c.tar"]),
    ("data/**/d.tar", ["deep/one/more/d.tar", "deep/two/d.tar"]),
    ("{data,other}/a-0000.tar", ["data/a-0000.tar", "other/a-0000.tar"]),
    ("data/deep/one/c.tar", ["c.tar"]),
    ("d*a/b-0000.tar", ["data/b-0000.tar"]),
]


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS)
def test_patterns_stand_for_files(pattern: str, expected: list[str]) -> None:
    make(*(f"data/a-000{number}.tar" for number in range(3)), "data/b-0000.tar", "other/a-0000.tar")
    make("data/deep/one/c.tar", "data/deep/two/c.tar", "data/deep/one/more/d.tar", "data/deep/two/d.tar")
    Path("data/a-folder.tar").mkdir()  # not a file
    assert paths(pattern) == expected


@pytest.mark.parametrize("target", ["..", "../..", "../b"])
def test_a_link_into_a_folder_above_it_is_refused_where_all_depths_are_asked_for(here: Path, target: str) -> None:
    make("data/a/x.tar", "data/b/x.tar")
    Path("data/b/more").symlink_to("../a")  # a link that leads elsewhere is followed
    assert paths("data/**/x.tar") == ["a/x.tar", "b/more/x.tar", "b/x.tar"]
    Path("data/a/again").symlink_to(target)
    assert "a/x.tar" in paths("data/*/x.tar")  # of one depth, it has an end
    for pattern in ("data/**/x.tar", f"{here}/d*/**/*.tar"):
        with pytest.raises(ConfigError, match=r"data/.*: a link leads back to a folder that it lies in"):
            expand(pattern)


def test_absolute_paths_home_and_file_urls_are_local(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("data/a.tar")
    monkeypatch.setenv("HOME", str(here))
    for pattern in (f"{here}/data/a.tar", "~/data/a.tar", f"file://{here}/data/*.tar", "data//a.tar"):
        assert paths(pattern) == ["a.tar"]


def test_names_with_brackets_and_braces_are_names() -> None:
    make("data/a[1].tar", "data/b{1,2}.tar", "set[2]/x-0.tar", "set[2]/x-1.tar")
    assert paths("data/a[1].tar") == ["a[1].tar"]
    assert paths("data/b{1,2}.tar") == ["b{1,2}.tar"]
    assert [found.file for found in expand("set[2]/x-{0..1}.tar")] == ["set[2]/x-0.tar", "set[2]/x-1.tar"]
    assert paths("data/*.tar") == ["a[1].tar", "b{1,2}.tar"]


MATCHES_NOTHING = ["data/*.tar", "data/b-[0-9].tar", "nowhere/**/*.tar"]


@pytest.mark.parametrize("pattern", MATCHES_NOTHING)
def test_a_pattern_that_matches_nothing_is_an_error(pattern: str) -> None:
    make("data/a.zip", "other/a.tar")
    with pytest.raises(ConfigError, match=re.escape(f"'{pattern}' matches no file")):
        expand(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "a{b", "{}", "{a}", "{a,b}", "{a,b}{c,d,}", "{{a,b},c}", "{0..9}", "{09..3}", "{-5..5..3}", "{9..0..4}"),
        *(
            "{a..e}",
            "{Z..c..2}{a..a}",
            "x{a,b{0..3},{c,d}{e,f}}y{1..2}",
            r"\{a,b\}{c,d}",
            r"{a\,b,c}",
            "{a,{b,{c,{d,e}}}}",
            "a,b{c,d},e",
        ),
        *("a,b{c,d},e", "{0..3..0}", "{x,{0..4}..9}", "{0..1}..{2..3}"),
    ],
)
def test_names_are_counted_before_they_are_made(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        names = list(braceexpand(pattern))
    except ValueError:
        with pytest.raises(ConfigError, match="a brace is opened or closed alone"):
            expand_braces(pattern, "source.shards")
        return
    monkeypatch.setattr(patterns, "_MOST_NAMES", len(names))
    assert expand_braces(pattern, "source.shards") == names
    monkeypatch.setattr(patterns, "_MOST_NAMES", len(names) - 1)
    with pytest.raises(ConfigError, match="stands for more than"):
        expand_braces(pattern, "source.shards")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{0.." + "9" * 5000 + "}", "stands for more than 10,000,000 names"),
        ("{a,b}" * 40, "stands for more than 10,000,000 names"),
        ("x{a{1..3000}{1..3000}{1..3000},b}", "stands for more than 10,000,000 names"),
        ("{a," * 2000 + "}" * 2000, "braces lie too deep in one another"),
    ],
    ids=lambda value: value[:20],
)
def test_a_pattern_of_too_many_names_is_refused_before_they_are_made(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^source.exclude: .*{reason}"):
        expand_braces(pattern, "source.exclude")
