"""Where exports are written, and what is refused there."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ExportError
from pipeline.jobs.exporting.place import place_for


def test_it_appears_when_it_is_published(tmp_path: Path) -> None:
    out = tmp_path / "folder/out"
    with place_for(out, "store", {"a": 1}) as place:
        place.note(3, {"rows": 5})
        (place.unfinished / "left").touch()
    with place_for(out, "store", {"a": 1}) as place:
        assert place.done() == {3: {"rows": 5}}
        assert not list(place.unfinished.iterdir())
        (place.files / "some").touch()
        assert not out.exists()
        place.publish({"rows": 5})
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "some"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_and_a_link_are_taken(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with place_for(tmp_path / "out", "store", {}) as place:
        place.publish({})
    assert (tmp_path / "elsewhere/export.json").exists()


def test_only_the_same_goes_on(tmp_path: Path) -> None:
    with place_for(tmp_path / "out", "store", {"request": {"offset": 0}}):
        pass
    with (
        pytest.raises(ConfigError, match=r"was begun for something else: request.offset: 5 here, 0 there"),
        place_for(tmp_path / "out", "store", {"request": {"offset": 5}}),
    ):
        pass


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        place_for(tmp_path / "out", "store", {}),
        pytest.raises(ExportError, match="another process works on this export"),
        place_for(tmp_path / "out", "store", {}),
    ):
        pass


@pytest.mark.parametrize(
    ("made", "out", "message"),
    [
        ("out/file", "out", "is there already; name a new folder, or an empty one"),
        ("out/export.json", "out", "is there already, a whole export"),
        ("out", "out", "is there already; name a new folder"),
        ("out.partial/notes", "out", "out.partial: is where this export would be written, and is none"),
        ("out.partial", "out", "out.partial: is where this export would be written, and is none"),
        ("store/store.json", "store/out", "lies in the store"),
        ("store/store.json", "/proc", "is there already|a file system is mounted there"),
        ("store/store.json", "s3://bucket/out", "exports are written to a local folder"),
    ],
)
def test_places_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, out: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(made).parent.mkdir(exist_ok=True)
    Path(made).write_text("mine")
    with pytest.raises(ConfigError, match=message), place_for(out, "store", {}):
        pass
    assert Path(made).read_text() == "mine"
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == [made]
