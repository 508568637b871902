"""Names of classes."""

from pathlib import Path

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.source.classes.finding import find_classes
from pipeline.source.classes.names import classes_difference, describe_classes, read_classes
from pipeline.source.find import find_source_shards
from pipeline.source.folders.listings import Listings


def found(source: SourceConfig) -> tuple[str, ...] | None:
    return find_classes(source, list(find_source_shards(source, Listings())))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("10/a.jpg", "2/b.jpg", "1/deep/c.jpg", "nothing/d.txt", "e.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_folders_with_images_are_classes_in_lexicographic_order_unless_a_file_says_otherwise(tree: Path) -> None:
    names = tree.parent / "names.txt"
    names.write_text("1\n2\n10\n\n")
    source = SourceConfig(shards=(str(tree),), label="folder")
    assert found(source) == ("1", "10", "2")
    assert found(source.model_copy(update={"classes": str(names)})) == ("1", "2", "10")
    assert found(source.model_copy(update={"label": "cls"})) is None
    assert found(source.model_copy(update={"label": None})) is None


def test_classes_that_only_reading_would_tell_must_be_named(tree: Path) -> None:
    (tree.parent / "x.tar").touch()
    for label, shards in (("prefix:_", str(tree)), ("folder", f"{tree.parent}/x.tar")):
        with pytest.raises(ConfigError, match=r"^source\.classes: source\.label = "):
            found(SourceConfig(shards=(shards,), label=label))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("a\n\nb\n", "line 2 is empty, and would be the class 1"),
        ("a\nb\na\n", "'a' stands in the lines 1 and 3"),
    ],
)
def test_a_file_that_names_no_classes_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ConfigError, match=rf"source\.classes: .*names\.txt: {reason}"):
        read_classes(f"{tmp_path}/names.txt")


def test_a_difference_is_named_by_its_first_class(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n")
    source = SourceConfig(shards=(), classes=f"{tmp_path}/names.txt")
    assert classes_difference(source, ("a", "b")) is None
    assert classes_difference(source, ("a", "c")) == "class 1 is 'b' here, 'c' there"
    assert classes_difference(source, None) == "2 classes here, 0 there"
    assert classes_difference(SourceConfig(shards=()), ("a", "c")) is None


def test_few_classes_are_shown_and_of_many_the_ends() -> None:
    assert describe_classes(("1", "10", "2")) == "3 classes: 0 = 1, 1 = 10, 2 = 2"
    assert describe_classes(tuple(map(str, range(1000)))).endswith(
        "4 = 4, ..., 995 = 995, 996 = 996, 997 = 997, 998 = 998, 999 = 999"
    )
