"""`make bench-ar-vqgan`, with a small network."""

import re
import sys

import pytest
from fixtures_store import cold
from support import ROOT, import_path


@pytest.mark.slow
def test_steps_from_the_store_and_with_the_tokenizer_take_turns() -> None:
    small = ("--batch-size", "4", "--rounds", "1", "--side", "32", "--channels", "32", "--largest", "2")
    script = ROOT / "scripts/examples/bench_ar_vqgan.py"
    found = {"PYTHONPATH": import_path(ROOT / "scripts/benchmarks")}
    done = cold(sys.executable, script, *small, environment=found, timeout_s=280)
    assert done.status == 0, done.err
    assert "4 images of 32 px a step" in done.out
    assert len(re.findall(r"^\| .* \| [\d.,]+ ms \| [\d.,]+ ms \| [\d.,]+ \|$", done.out, re.MULTILINE)) == 2
