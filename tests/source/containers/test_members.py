"""Names of members are split into keys and extensions by WebDataset's rules."""

import io

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import examples, tar_bytes
from webdataset.tariterators import base_plus_ext, tar_file_iterator

from pipeline.source.containers.members import split_name

NAMES = [
    ("0001.jpg", ("0001", "jpg")),
    ("0001.v1.0.jpg", ("0001", "v1.0.jpg")),  # the key ends at the first dot
    ("a.b.tar.gz", ("a", "b.tar.gz")),
    ("folder/0001.jpg", ("folder/0001", "jpg")),
    ("v1.0/deep.er/0001.seg.png", ("v1.0/deep.er/0001", "seg.png")),  # dots of folders do not count
    ("./0001.jpg", ("./0001", "jpg")),
    ("../0001.jpg", ("../0001", "jpg")),
    ("/abs/0001.jpg", ("/abs/0001", "jpg")),
    ("a//b.jpg", ("a//b", "jpg")),
    ("UPPER/Key.JPG", ("UPPER/Key", "jpg")),  # extensions lose their case, keys keep it
    ("with space.jpg", ("with space", "jpg")),
    ("日本/ü.jpg", ("日本/ü", "jpg")),
    ("a.", ("a", "")),
    ("a..jpg", ("a", ".jpg")),
    ("a.__key__", ("a", "__key__")),
    ("_a_.jpg", ("_a_", "jpg")),
    ("__a.jpg", ("__a", "jpg")),
    ("x__meta__/a.jpg", ("x__meta__/a", "jpg")),  # only at the very beginning
    ("noextension", None),
    ("folder.d/noextension", None),
    (".hidden", None),
    (".hidden.jpg", None),
    ("__meta__.json", ("__meta__", "json")),  # goes on behind the second pair of underscores
    ("__meta__", None),
    ("__meta__/a.jpg", None),
    ("__index__.json__", None),
    ("____/a.jpg", None),
    ("", None),
    ("a.jpg\n", ("a", "jpg\n")),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names_are_split_as_webdataset_splits_them(name: str, expected: tuple[str, str] | None) -> None:
    assert split_name(name) == expected
    assert by_webdataset(name) == expected


def by_webdataset(name: str) -> tuple[str, str] | None:
    """Key and extension in WebDataset's reading of a tar with one member of that name."""
    if not name:
        return None
    members = list(tar_file_iterator(io.BytesIO(tar_bytes([(name, b"")]))))
    key, extension = base_plus_ext(members[0]["fname"]) if members else (None, None)
    return None if key is None else (key, extension.lower())


@pytest.mark.parametrize("name", ["photos/.DS_Store", "photos/._0001.jpg", "a/b/.c.d"])
def test_a_dotfile_belongs_to_no_sample_in_any_folder(name: str) -> None:
    assert by_webdataset(name) is not None  # a sample whose key is the folder: our one deviation
    assert split_name(name) is None


def test_a_newline_in_a_folder_hides_no_sample() -> None:
    assert split_name("a\nb/c.jpg") == by_webdataset("a\nb/c.jpg") == ("a\nb/c", "jpg")


@settings(max_examples=examples(150))
@given(st.text("aB._/ ", min_size=1, max_size=12))
def test_any_name_is_split_as_webdataset_splits_it_but_for_dotfiles(name: str) -> None:
    assume(not name.endswith("/") and not name.rpartition("/")[2].startswith("."))
    assert split_name(name) == by_webdataset(name)
