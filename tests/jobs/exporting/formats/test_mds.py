"""mds: written and read back by Mosaic streaming, which wants an older numpy than the lock file has.

It is taken from `.venv/bench` (`make bench-loader` makes that) where this environment does not have it.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fixtures_exports import ROWS, TEXTS, VIEWS, grids, keys, labels, vqtok_export
from fixtures_store import cold
from support import ROOT

pytest_plugins = ["fixtures_exports"]

READ = """
import json, sys
from streaming import StreamingDataset
samples = [dict(sample) for sample in StreamingDataset(local=sys.argv[1], shuffle=False, batch_size=1)]
plain = [{**sample, "tokens": sample["tokens"].tolist(), "label": int(sample["label"])} for sample in samples]
print(json.dumps(plain))
"""


@pytest.fixture
def mosaic() -> Path:
    """A Python that has the library."""
    if importlib.util.find_spec("streaming"):
        return Path(sys.executable)
    python = ROOT / ".venv/bench/bin/python"
    if not python.exists():
        pytest.skip("no mosaicml-streaming here, and no .venv/bench")
    return python


@pytest.mark.slow
def test_samples(mosaic: Path, store_of_views: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [mosaic, "-m", "pipeline", "export", store_of_views, out, "--format", "mds", "--rows-per-file", "20"]
    assert cold(*command, "--processes", "2", folder=ROOT).status == 0
    again = cold(*command[:5], tmp_path / "again", *command[6:], folder=ROOT)
    assert again.status == 0, again.err
    for path in out.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (tmp_path / "again" / path.relative_to(out)).read_bytes()
    done = cold(mosaic, "-c", READ, out)
    assert done.status == 0, done.err
    samples = json.loads(done.out.splitlines()[-1])
    assert [sample["tokens"] for sample in samples] == grids(store_of_views).tolist()
    assert [sample["label"] for sample in samples] == labels(store_of_views)
    assert [sample["key"] for sample in samples] == keys(store_of_views)
    texts = [None if text is None else text.decode() for text in TEXTS]
    assert [sample["txt"] for sample in samples[:7]] == [texts[row % 4] for row in range(7)]
    assert (len(samples), len(samples[0]["tokens"])) == (ROWS, VIEWS)


@pytest.mark.skipif(importlib.util.find_spec("streaming") is not None, reason="the library is here")
def test_without_the_library(exported_store: Path, tmp_path: Path) -> None:
    done = vqtok_export(exported_store, tmp_path / "out", "--format", "mds")
    assert done.exit_code == 2
    assert "pip install mosaicml-streaming" in done.stderr
