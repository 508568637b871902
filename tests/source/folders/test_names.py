"""Files of a folder are grouped by their paths without the last extension."""

import os

import pytest

from pipeline.source.folders.names import FileSample, samples_of, split_file_name

NAMES = [
    ("a.jpg", ("a", "jpg")),
    ("a.v1.0.JPG", ("a.v1.0", "jpg")),  # the last extension, unlike in a tar
    ("ü.txt", ("ü", "txt")),
    ("a b.jpg", ("a b", "jpg")),
    ("a\nb.jpg", ("a\nb", "jpg")),
    ("a", None),
    ("a.", None),
    (".jpg", None),
    (".a.jpg", None),
    ("..jpg", None),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_a_name_is_a_stem_and_an_extension(name: str, expected: tuple[str, str] | None) -> None:
    assert split_file_name(name) == expected


def test_files_of_one_key_are_one_sample_and_keys_are_sorted() -> None:
    files = {"b": ["x.jpg", "x.cls", "README"], "": ["a.png", "x.jpg"], "a-b": ["z.jpg"], "a": ["z.jpg"]}
    assert samples_of(files) == [
        FileSample("a", [("png", "a.png")]),
        FileSample("a-b/z", [("jpg", "a-b/z.jpg")]),
        FileSample("a/z", [("jpg", "a/z.jpg")]),
        FileSample("b/x", [("cls", "b/x.cls"), ("jpg", "b/x.jpg")]),
        FileSample("x", [("jpg", "x.jpg")]),
    ]


def test_a_key_is_always_text_and_the_path_always_leads_to_the_file() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (sample,) = samples_of({"x": [name]})
    assert sample.key == "x/caf\\xe9"
    assert os.fsencode(sample.members[0][1]) == b"x/caf\xe9.jpg"
