"""Tables of labels beside the images."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.source.classes.tables import read_table, table_digest


def write(folder: Path, text: str) -> str:
    path = folder / "labels.csv"
    path.write_text(text, newline="")
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,1\nb,2\n", {"a": "1", "b": "2"}),
        ("\ufeffkey,label\r\na,1\r\n\r\nb,2\r\n", {"a": "1", "b": "2"}),
        ("file_name,class\n./x/a.JPEG,1\nb.v2.png,2", {"x/a": "1", "b.v2": "2"}),
        ('"a,b.jpg",cat\nc.txt, dog \nd,\n', {"a,b": "cat", "c.txt": "dog"}),  # no label is no label
        ("a,1\na.jpg,1\n", {"a": "1"}),
    ],
)
def test_keys_may_be_given_as_names_of_images(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    assert dict(read_table(write(tmp_path, text)).by_key) == expected


def test_labels_without_keys_are_those_of_sorted_keys(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "7\n8\n\n9\n"))
    assert table.with_keys(["b", "a10", "a"]).by_key == {"a": "7", "a10": "8", "b": "9"}
    with pytest.raises(ConfigError, match="3 labels, and the collection has 2 images"):
        table.with_keys(["a", "b"])
    with pytest.raises(ConfigError, match="some keys are in several source shards"):
        table.with_keys(["a", "a", "b"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("key,label\n", "no key in it has a label"),
        ("a,\nb,\n", "no key in it has a label"),
        ("a,1\nb\n", "line 2 has 1 columns"),
        ("a,1,2\n", "line 1 has 3 columns"),
        ("a,1\nb,2\na.png,3\n", "line 3: 'a' has another label before, '1' instead of '3'; the key comes first"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"source\.label: .*labels\.csv: " + reason):
        read_table(write(tmp_path, text))
    with pytest.raises(ConfigError, match=r"source\.label: nowhere\.csv cannot be read: No such file"):
        read_table("nowhere.csv")


def test_a_digest_tells_contents_and_not_how_they_are_written(tmp_path: Path) -> None:
    one = table_digest(write(tmp_path, "a,1\nb,2\n"))
    assert table_digest(write(tmp_path, "key,label\r\nb.jpg,2\r\na.jpg,1\r\n")) == one
    assert len({one, table_digest(write(tmp_path, "a,1\nb,3\n")), table_digest(write(tmp_path, "1\n2\n"))}) == 3
