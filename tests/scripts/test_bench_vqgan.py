"""`make bench-vqgan`, with a small network."""

import sys
from pathlib import Path

import pytest
from fixtures_store import cold
from support import ROOT


@pytest.mark.slow
def test_a_job_and_the_module_by_hand_take_turns(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    small = ("--images", "8", "--side", "32", "--channels", "32")
    done = cold(sys.executable, ROOT / "scripts/benchmarks/bench_vqgan.py", *small, "--markdown", page)
    assert done.status == 0, done.err
    rows = [line.split("|")[1].strip() for line in done.out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["vqtok", "the module in batches of eight", "vqtok's encoding alone"]
    assert "<!-- vqgan -->\n## A published tokenizer of real size" in page.read_text()
