"""Damage to the files of a checkpoint is told before one of them is loaded."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.jobs.training.checkpoint_files import FILE, damage, is_recorded, write_contents


def rename(folder: Path, name: str, other: str) -> None:
    """Call a file otherwise in the record."""
    (folder / FILE).write_text((folder / FILE).read_text().replace(f'"{name}"', f'"{other}"'))


HARMS: list[tuple[Callable[[Path], object], str | None]] = [
    (lambda folder: None, None),
    (lambda folder: (folder / "later").write_bytes(b"x"), None),  # nothing of ours
    (lambda folder: (folder / "model").write_bytes(b"123!"), "model holds other bytes than were written"),
    (lambda folder: (folder / "model").write_bytes(b"123"), "model has 3 bytes, 4 were written"),
    (lambda folder: (folder / "random").unlink(), "random: No such file or directory"),
    (lambda folder: (folder / FILE).write_bytes(b"{}"), f"{FILE} cannot be read"),
    (lambda folder: (folder / "random").unlink() or os.mkfifo(folder / "random"), "random is no file"),
    (lambda folder: (folder / "new").symlink_to("/dev/zero"), "new is no file"),
    (lambda folder: rename(folder, "model", "../model"), f"{FILE} names '../model', which is none of its files"),
]


@pytest.mark.parametrize(("harm", "reason"), HARMS)
def test_each_damage_is_told(harm: Callable[[Path], object], reason: str | None, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"1234")
    (tmp_path / "random").write_bytes(b"")
    assert not is_recorded(tmp_path)
    assert damage(tmp_path) is None  # as versions left them that recorded nothing
    write_contents(tmp_path)
    assert is_recorded(tmp_path)
    harm(tmp_path)
    assert damage(tmp_path) == reason
