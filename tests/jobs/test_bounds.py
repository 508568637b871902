"""Which stage bounds a run."""

import re

import pytest

from pipeline.jobs.bounds import Load, find_bounds, in_all

THREADS = {"read": 1, "decode": 4, "encode": 2, "write": 1, "cores": 4}


def load(
    on_cpu: bool, wall: float = 10.0, bf16_helps: bool = False, gpu_decodes: bool = False, **seconds: float
) -> Load:
    stages = {"read": 0.1, "decode": 0.1, "encode": 0.1, "write": 0.1, "wall": wall, **seconds}
    return Load(stages, THREADS, on_cpu, bf16_helps, gpu_decodes)


@pytest.mark.parametrize(
    ("found", "stage", "text"),
    [
        (load(False, decode=37), "decode", r"decode bounds \(read 1%, decode 92%, encode 0%, write 1% busy\); add CPU"),
        (load(False, decode=37, gpu_decodes=True), "decode", ".*; start processes on more GPUs or set .*=torchvision"),
        (load(False, encode=19), "encode", "encode bounds .*; start processes on more GPUs$"),
        (load(False, encode=19, bf16_helps=True), "encode", ".*; start .* GPUs or set tokenize.precision=bf16$"),
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


NO_STAGE, READ = {"decode": 10, "encode": 12}, {"read": 9.5}


@pytest.mark.parametrize(
    ("found", "idle", "remedy"),
    [
        (load(True, **NO_STAGE), 0.6, "start more processes or pack more images into a source shard"),
        (load(True, **NO_STAGE), 0.1, "all CPU cores are in use"),
        (load(True, **NO_STAGE), None, "start more processes where CPU cores are idle or pack more images.*"),
        (load(False, **READ), 0.6, "read the source from faster storage or start more processes"),
        (load(False, **READ), 0.1, "read the source from faster storage"),
        (load(False, wall=2.0, read=1.9), 0.6, ""),  # two seconds tell nothing
        (load(True, encode=38), 0.1, "use a GPU or add CPU cores"),
        (load(True, encode=38, bf16_helps=True), 0.1, "use a GPU, add CPU cores, or set tokenize.precision=bf16"),
    ],
)
def test_advice_is_given_where_it_can_be_true(found: Load, idle: float | None, remedy: str) -> None:
    bounds = find_bounds([found], idle)
    assert bounds is not None
    assert re.fullmatch(remedy, bounds.remedy)
    assert str(bounds).endswith(f"; {bounds.remedy}" if remedy else ")")
    assert find_bounds(in_all([found] * 3), idle) == find_bounds([found] * 3, idle)


def test_processes_side_by_side_tell_as_much_as_the_longest() -> None:
    short = [load(False, wall=2.0, read=1.9)] * 8
    for seconds, telling in ((None, False), (2.0, False), (16.0, True)):
        bounds = find_bounds(short, seconds=seconds)
        assert bounds is not None
        assert bool(bounds.remedy) is telling


def test_source_shards_count_by_the_time_they_took() -> None:
    bounds = find_bounds([load(False, wall=90, decode=360), load(False, wall=10)])
    assert bounds is not None
    assert bounds.busy["decode"] == pytest.approx(0.9, abs=0.01)


def test_commits_without_these_figures_tell_nothing() -> None:
    assert find_bounds([]) is None
    assert find_bounds([Load({"encode": 3.0, "write": 1.0}, {}, True)]) is None
