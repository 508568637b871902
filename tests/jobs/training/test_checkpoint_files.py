"""Damage to the files of a checkpoint is told before one of them is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.jobs.training.checkpoint_files import FILE, damage, is_recorded, write_contents

HARMS: list[tuple[Callable[[Path], object], str | None]] = [
    (lambda folder: None, None),
    (lambda folder: (folder / "later").write_bytes(b"x"), None),  # nothing of ours
    (lambda folder: (folder / "model").write_bytes(b"123!"), "model holds other bytes than were written"),
    (lambda folder: (folder / "model").write_bytes(b"123"), "model has 3 bytes, 4 were written"),
    (lambda folder: (folder / "random").unlink(), "random: No such file or directory"),
    (lambda folder: (folder / FILE).write_bytes(b"{}"), f"{FILE} cannot be read"),
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
