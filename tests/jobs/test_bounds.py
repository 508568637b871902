"""Which stage bounds a run."""

import re

import pytest

from pipeline.jobs.bounds import Load, find_bounds

THREADS = {"read": 1, "decode": 4, "encode": 2, "write": 1, "cores": 4}


def load(on_cpu: bool, wall: float = 10.0, **seconds: float) -> Load:
    return Load({"read": 0.1, "decode": 0.1, "encode": 0.1, "write": 0.1, "wall": wall, **seconds}, THREADS, on_cpu)


@pytest.mark.parametrize(
    ("found", "stage", "text"),
    [
        (load(False, decode=37), "decode", r"decode bounds \(read 1%, decode 92%, encode 0%, write 1% busy\); add CPU"),
        (load(False, encode=19), "encode", "encode bounds .*; set tokenize.precision=bf16"),
        (load(False, read=9.5), "read", "read bounds .*; read the source from faster storage"),
        (load(False, write=9.9), "write", "write bounds .*; put the store on faster storage"),
        # On CPUs decoder and encoder share the cores: either may bound with half of them.
        (load(True, decode=18, encode=20), "encode", "encode bounds .* encode 50%.*; use a GPU"),
        (load(True, decode=30, encode=9), "decode", "decode bounds .*image.decoder=turbojpeg"),
        (load(True, decode=10, encode=12), None, "no stage is busy all the time .*; start more processes"),
        (load(False, decode=20, encode=10), None, "no stage is busy"),
    ],
)
def test_the_busiest_stage_bounds(found: Load, stage: str | None, text: str) -> None:
    bounds = find_bounds([found])
    assert bounds is not None
    assert bounds.stage == stage
    assert re.match(text, str(bounds))


def test_source_shards_count_by_the_time_they_took() -> None:
    bounds = find_bounds([load(False, wall=90, decode=360), load(False, wall=10)])
    assert bounds is not None
    assert bounds.busy["decode"] == pytest.approx(0.9, abs=0.01)


def test_commits_without_these_figures_tell_nothing() -> None:
    assert find_bounds([]) is None
    assert find_bounds([Load({"encode": 3.0, "write": 1.0}, {}, True)]) is None
