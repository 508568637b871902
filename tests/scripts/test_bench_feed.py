"""`make bench-feed` on a few photographs."""

import re
from pathlib import Path

import pytest
from bench_feed import main
from click.testing import CliRunner
from PIL import Image
from support import encoded, picture
from tokenizing.photos import write_photos


def test_it_runs_and_writes_its_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setattr("bench_feed.keep_freed_memory", lambda: None)
    photos = write_photos(tmp_path / "photos", [encoded(Image.fromarray(picture(40, 56)), "JPEG")], 8)
    page = tmp_path / "page.md"
    options = ["--source", photos.pattern, "--images", 8, "--side", 16, "--rounds", 1, "--threads", 1, "--threads", 3]
    done = CliRunner().invoke(main, [*map(str, options), "--markdown", str(page)])
    assert done.exit_code == 0, done.output
    assert re.search(r"\| 3 +\| +[\d,.]+ \| +[\d.]+× \|", page.read_text()), page.read_text()
    assert re.search(r"\d µs of CPU time an image", page.read_text())
