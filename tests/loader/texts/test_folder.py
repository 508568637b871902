"""Ids on the disk are whole or not there, whoever writes them and whatever ends it."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_store import wait_for

from pipeline.errors import StoreError
from pipeline.loader.texts.folder import stored_ids

OF = {"of": "a test"}
TEXTS = [np.array(text, np.uint32) for text in ([5, 6, 7], [], [1 << 31], [2])]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for folder, texts in (("some", TEXTS), ("none", []), ("empty", TEXTS[1:2])):
        written = stored_ids(tmp_path / folder, "ids", OF, iter(texts))
        again = stored_ids(tmp_path / folder, "ids", OF, None)
        for found in (written, again):
            assert found.offsets.tolist() == np.cumsum([0, *map(len, texts)]).tolist()
            assert found.ids.tolist() == [id for text in texts for id in text]
    assert (written.longest, written.vocab_size) == (0, 0)
    some = stored_ids(tmp_path / "some", "ids", OF, None)
    assert (some.longest, some.vocab_size) == (3, (1 << 31) + 1)


def test_texts_are_not_taken_where_their_ids_are(tmp_path: Path) -> None:
    stored_ids(tmp_path, "ids", OF, iter(TEXTS))

    def never() -> Iterator[Any]:
        raise AssertionError
        yield

    stored_ids(tmp_path, "ids", OF, never())
    assert listing(tmp_path) == ["ids"]
    with pytest.raises(StoreError, match=r"other: there are no ids yet, and no encode= to make them with"):
        stored_ids(tmp_path, "other", OF, None)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        yield TEXTS[0]
        raise KeyError("a token")

    with pytest.raises(KeyError, match="a token"):
        stored_ids(tmp_path, "ids", OF, failing())
    assert listing(tmp_path) == []


def test_damage_is_named(tmp_path: Path) -> None:
    place = tmp_path / "ids"
    stored_ids(tmp_path, "ids", OF, iter(TEXTS))
    about = (place / "about.json").read_text()
    with pytest.raises(StoreError, match=r'ids: the ids of texts are damaged \(of: "another" here, "a test" there\)'):
        stored_ids(tmp_path, "ids", {"of": "another"}, None)
    for damaged in (about[:20], "{}", about.replace('"ids": 5', '"ids": 6'), "[]"):
        (place / "about.json").write_text(damaged)
        with pytest.raises(
            StoreError, match=r"ids: the ids of texts are damaged .* delete this folder, and they are made"
        ):
            stored_ids(tmp_path, "ids", OF, None)
    (place / "about.json").write_text(about)
    os.truncate(place / "ids.uint32", 8)
    with pytest.raises(StoreError, match=r"files of \[40, 8\] bytes, where \[40, 20\] were written"):
        stored_ids(tmp_path, "ids", OF, None)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/texts: the ids of texts cannot be kept there: .*; name another folder"):
        stored_ids(tmp_path / "file" / "texts", "ids", OF, iter(TEXTS))


# --- several processes ------------------------------------------------------------------------------------


def write(folder: Path, signs: Path, number: int, hang: bool) -> None:
    """Leave a sign when texts are taken, and hang behind the first of them if told to."""

    def texts() -> Iterator[Any]:
        (signs / str(number)).touch()
        yield TEXTS[0]
        while hang:
            signal.pause()
        yield from TEXTS[1:]

    found = stored_ids(folder, "ids", OF, texts())
    assert found.ids.tolist() == [5, 6, 7, 1 << 31, 2]


def test_one_of_many_processes_writes_and_one_that_is_killed_leaves_it_to_the_next(tmp_path: Path) -> None:
    folder, signs = tmp_path / "texts", tmp_path / "signs"
    signs.mkdir()
    context = multiprocessing.get_context("fork")
    first = context.Process(target=write, args=(folder, signs, 0, True))
    first.start()
    wait_for(lambda: (signs / "0").exists())
    others = [context.Process(target=write, args=(folder, signs, number, False)) for number in range(1, 5)]
    for process in others:
        process.start()
    assert listing(folder) == ["ids.unfinished"]
    assert sorted(path.name for path in signs.iterdir()) == ["0"]  # the others wait
    first.kill()
    for process in [first, *others]:
        process.join(60)
    assert [process.exitcode for process in others] == [0] * 4
    assert len(list(signs.iterdir())) == 2
    assert listing(folder) == ["ids"]
