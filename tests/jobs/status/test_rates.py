"""How fast a job goes: idle time, overlaps, windows."""

import pytest

from pipeline.jobs.status.rates import WorkDone, rate_of

HOUR = 3600.0
DAY = 86400.0


@pytest.mark.parametrize(
    ("work", "window", "images_per_second"),
    [
        ([], {}, None),
        ([WorkDone(0, 0.9, 100, 1)], {}, None),  # too little to tell
        ([WorkDone(0, 10, 100, 1)], {}, 10),
        ([WorkDone(0, 10, 100, 1), WorkDone(0, 10, 100, 1)], {}, 20),  # two processes
        ([WorkDone(5, 10, 50, 1), WorkDone(0, 7, 70, 1)], {}, 12),  # in any order
        ([WorkDone(0, 10, 100, 1), WorkDone(2, 3, 20, 1)], {}, 12),  # one within the other
        ([WorkDone(0, 10, 100, 1), WorkDone(50, 60, 100, 1)], {}, 200 / 60),  # a short pause belongs to the work
        ([WorkDone(0, 10, 100, 1), WorkDone(DAY, DAY + 10, 100, 1)], {}, 10),  # a day does not
        ([WorkDone(0, 0, 100, 1), WorkDone(10, 10, 100, 1)], {}, 20),  # commits alone, whose seconds nobody knows
        ([WorkDone(0, HOUR, 3600, 1)], {"since": HOUR - 600}, 1),  # one long source shard, partly in the window
        ([WorkDone(0, HOUR, 3600, 1)], {"since": HOUR}, None),
        ([WorkDone(0, HOUR, 3600, 1)], {"since": HOUR + 1}, None),
        ([WorkDone(0, 10, 10, 1), WorkDone(HOUR, HOUR + 10, 90, 1)], {"since": HOUR - 600, "until": HOUR + 600}, 9),
        ([WorkDone(100, 110, 90, 1)], {"until": 105}, 9),  # the clock of another host may be ahead of ours
        ([WorkDone(200, 110, 90, 1), WorkDone(0, 10, 10, 1)], {}, 1),
    ],
)
def test_images_per_second_in_which_anybody_worked(
    work: list[WorkDone], window: dict[str, float], images_per_second: float | None
) -> None:
    rate = rate_of(work, **window)
    assert (rate.images_per_second if rate else None) == pytest.approx(images_per_second)


def test_bytes_are_counted_like_images() -> None:
    rate = rate_of([WorkDone(0, 20, 10, 4000), WorkDone(10, 20, 10, 1000)], since=10)
    assert rate is not None
    assert (rate.images_per_second, rate.bytes_per_second) == (1.5, 300)
