"""One training at a time in a folder; other processes are in `test_job.py`, and the lock itself in `test_locks.py`."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pipeline.errors import TokenizerError
from pipeline.jobs.training.lock import only_training


def test_a_folder_is_held_until_the_end_whatever_that_is(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with pytest.raises(KeyError), only_training(folder):
        with (
            pytest.raises(TokenizerError, match="b: another process is training there; wait for it, or end it"),
            only_training(folder),
        ):
            pass
        raise KeyError
    with only_training(folder), only_training(tmp_path / "c"):
        pass


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "reconstructions"])
def test_nothing_is_written_or_deleted_where_a_link_in_it_leads(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / name).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(TokenizerError, match=f"tokenizer/{name}: is a link, and training writes and deletes in it; put"),
        only_training(tmp_path / "tokenizer"),
    ):
        pass
    assert [path.name for path in (tmp_path / "tokenizer").iterdir()] == [name]


def test_a_file_system_without_locks_is_trusted_to_have_one_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_training(tmp_path), only_training(tmp_path):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder/.lock").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "folder"):
        with (
            pytest.raises(TokenizerError, match=f"{folder.name}: cannot be written as the tokenizer folder: "),
            only_training(folder),
        ):
            pass
