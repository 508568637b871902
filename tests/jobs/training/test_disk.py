"""Full disks."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_store import vqtok
from fixtures_training import TrainingJob
from support import file_system, sampled

from pipeline.errors import TokenizerError
from pipeline.jobs.training import job as train
from pipeline.jobs.training.disk import explaining_a_full_disk, in_words

pytest_plugins = ["fixtures_store", "fixtures_training"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes of its own."""
    with file_system(tmp_path / "disk", 2) as folder:
        yield folder


def fill(disk: Path, but: int) -> None:
    """Take all of a disk but so many bytes."""
    with (disk / "ballast").open("wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        file.write(bytes(max(0, free - but)))


@pytest.mark.parametrize(
    ("free", "message", "checkpoints"),
    sampled(
        (76 << 10, "tokenizer: cannot be written: No space left on device; ", [18, 24]),
        (0, "tokenizer: cannot be written: No space left on device; ", [18]),
        # Which file does not fit, and so what its library calls it, depends on sizes that versions change.
        (8 << 10, r"(cannot be written: no space is left \(\w+Error: |No space left on device; )", [18]),
        (24 << 10, r"step-000024: the checkpoint cannot be written: no space is left \(\w+Error: ", [18]),
    ),
)
def test_a_full_disk_ends_in_one_message_and_keeps_the_checkpoint_before(
    free: int, message: str, checkpoints: list[int], halted: TrainingJob, trained: TrainingJob, small_disk: Path
) -> None:
    shutil.copytree(halted.tokenizer, small_disk / "job/tokenizer")
    job = TrainingJob(small_disk / "job", trained.source).write()
    config = job.config()
    fill(small_disk, free)
    done = vqtok("train", "--config", job.file, folder=small_disk.parent / "output").wait()
    assert done.status == 1, done.err
    messages = re.findall("^vqtok: .*", done.err, re.MULTILINE)
    assert len(messages) == 1, done.err
    assert re.search(message, messages[0]), messages
    assert re.search(r"[\d.]+ [KM]iB are free there, about [\d.]+ KiB are needed; make room", messages[0]), messages
    assert "Traceback" not in done.err
    assert list(job.tokenizer.rglob(".tmp-*")) == []
    assert job.checkpoints == checkpoints
    (small_disk / "ballast").unlink()
    train.run(config)
    assert job.weights == trained.weights


def test_a_quota_is_a_full_disk_too() -> None:
    with (
        pytest.raises(
            TokenizerError, match=r"^/a/b: cannot be written: .*; .* are free there, about 1\.0 GiB are needed"
        ),
        explaining_a_full_disk(Path("/a"), lambda: 1 << 30),
    ):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/a/b")
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")
    except RuntimeError as error:
        assert in_words(error) == "No space left on device"
