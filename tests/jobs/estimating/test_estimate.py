"""The arithmetic of an estimate."""

import dataclasses
import json
import math

import pytest

from pipeline.jobs.estimating.estimate import Estimate, Look, Measured
from pipeline.jobs.estimating.text import as_text

HEAD = Look(
    samples=200,
    source_bytes=20_000,
    all_samples=None,
    rows=150,
    rejected=50,
    row_bytes=15_000,
    part_bytes=1000,
    reject_bytes=4000,
)
WHOLE = dataclasses.replace(HEAD, all_samples=200)
MEASURED = Measured(
    looks=(HEAD, HEAD, HEAD),
    images=500,
    seconds=5.0,
    stages={"read": 900.0, "encode": 100.0},
    bounds=None,
    store_bytes=7000,
    manifest_bytes=200,
    device="cpu",
    cores=2,
    on_gpu=False,
)


def estimate(source_shards: int, source_bytes: int, *looks: Look, on_gpu: bool = False) -> Estimate:
    measured = dataclasses.replace(MEASURED, looks=looks or MEASURED.looks, on_gpu=on_gpu)
    return Estimate(source_shards, source_bytes, measured, processes=4, price=3.0)


def test_of_beginnings_the_bytes_tell_how_many_there_are() -> None:
    found = estimate(1000, 100_000_000)
    assert found.samples == 1_000_000  # 100 bytes each
    assert not found.is_counted
    assert found.rows == 750_000
    assert found.images_per_second == 100
    assert found.hours == pytest.approx(1_000_000 / 400 / 3600)
    assert found.cost == pytest.approx(4 * 3.0 * found.hours)
    assert found.store_bytes == pytest.approx(7000 + 1000 * 1200 + 750_000 * 100 + 1_000_000 * 20)
    assert found.spread == 0


def test_source_shards_that_were_read_to_their_end_are_counted() -> None:
    found = estimate(2, 99, WHOLE, WHOLE)
    assert (found.samples, found.is_counted, found.spread) == (400, True, None)
    assert not estimate(3, 60_000, WHOLE, WHOLE).is_counted
    assert estimate(3, 60_000, WHOLE, WHOLE).samples == 600


def test_without_sizes_the_count_of_some_stands_for_all_and_nothing_for_nothing() -> None:
    pipe = dataclasses.replace(WHOLE, source_bytes=0)
    assert estimate(10, 0, pipe).samples == 2000
    unknown = estimate(10, 0, dataclasses.replace(HEAD, source_bytes=0))
    assert math.isnan(unknown.samples)
    assert "nothing tells how many" in as_text(unknown)
    assert json.loads(json.dumps(unknown.to_json()))["hours"] is None


def test_source_shards_that_differ_make_it_less_sure() -> None:
    richer = dataclasses.replace(HEAD, row_bytes=30_000)
    found = estimate(1000, 100_000_000, HEAD, richer, HEAD)
    assert found.spread is not None
    assert 0.3 < found.spread < 0.6
    assert f"± {100 * found.spread:.0f} %" in as_text(found)


def test_the_text_has_the_arithmetic_and_the_json_every_figure() -> None:
    text = as_text(estimate(1000, 100_000_000, on_gpu=True))
    assert "1,000,000 images / (100.0 images/s x 4 processes)" in text
    assert "GPU-hours" in text
    assert "750,000 rows x 100.0 bytes + 1,000 parts x 1.20 kB + 7.00 kB" in text
    tree = json.loads(json.dumps(estimate(1000, 100_000_000).to_json()))
    assert tree["gpu_hours"] is None
    assert tree["process_hours"] == pytest.approx(4 * tree["hours"])
    assert tree["store_bytes_of"]["each_row"] == 100


@pytest.mark.parametrize(
    ("source_shards", "at_work"),
    [
        (1, 1.0),
        (3, 3.0),
        (4, 4.0),
        (5, 2.5),  # one does two, for which the others wait
        (8, 4.0),
        (1001, 1001 / 251),
    ],
)
def test_a_source_shard_is_the_work_of_one_of_the_four_processes(source_shards: int, at_work: float) -> None:
    found = estimate(source_shards, 100_000_000)
    assert found.at_work == pytest.approx(at_work)
    assert found.hours == pytest.approx(1_000_000 / 100 / 3600 / at_work)
    assert found.process_hours == pytest.approx(4 * found.hours)  # those that wait are paid for
    others = f"; on average the others of 4 find no source shard: there are {source_shards:,}, each the work of one"
    assert (others in as_text(found)) == (at_work != 4)
    assert f"x {at_work:,.4g} process{'es' * (at_work != 1)})" in as_text(found)
    assert found.to_json()["processes_at_work"] == found.at_work
