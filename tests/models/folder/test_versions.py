"""Equal versions of files mean equal contents."""

import os
from pathlib import Path

from pipeline.models.folder.versions import versions_of


def test_files_written_a_moment_ago_have_no_version(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert versions_of(tmp_path, ["a"]) is None
    assert versions_of(tmp_path, ["gone"]) is None
    # Dated back, but its inode was changed a moment ago.
    os.utime(tmp_path / "a", ns=(0, 0))
    assert versions_of(tmp_path, ["a"]) is None


def test_a_file_that_was_not_touched_keeps_its_version() -> None:
    folder = Path(os.__file__).parent  # written long ago
    assert versions_of(folder, ["os.py", "io.py"]) == versions_of(folder, ["os.py", "io.py"]) is not None
    assert versions_of(folder, ["os.py"]) != versions_of(folder, ["io.py"])
