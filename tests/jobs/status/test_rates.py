"""How fast a job goes: idle time, overlaps, windows."""

import pytest

from pipeline.jobs.status.rates import Work, rate_of

HOUR = 3600.0
DAY = 86400.0


@pytest.mark.parametrize(
    ("work", "window", "images_per_second"),
    [
        ([], {}, None),
        ([Work(0, 0.9, 100, 1)], {}, None),  # too little to tell
        ([Work(0, 10, 100, 1)], {}, 10),
        ([Work(0, 10, 100, 1), Work(0, 10, 100, 1)], {}, 20),  # two processes
        ([Work(5, 10, 50, 1), Work(0, 7, 70, 1)], {}, 12),  # in any order
        ([Work(0, 10, 100, 1), Work(2, 3, 20, 1)], {}, 12),  # one within the other
        ([Work(0, 10, 100, 1), Work(50, 60, 100, 1)], {}, 200 / 60),  # a short pause belongs to the work
        ([Work(0, 10, 100, 1), Work(DAY, DAY + 10, 100, 1)], {}, 10),  # a day does not
        ([Work(0, 0, 100, 1), Work(10, 10, 100, 1)], {}, 20),  # commits alone, whose seconds nobody knows
        ([Work(0, HOUR, 3600, 1)], {"since": HOUR - 600}, 1),  # one long source shard, partly in the window
        ([Work(0, HOUR, 3600, 1)], {"since": HOUR}, None),
        ([Work(0, HOUR, 3600, 1)], {"since": HOUR + 1}, None),
        ([Work(0, 10, 10, 1), Work(HOUR, HOUR + 10, 90, 1)], {"since": HOUR - 600, "until": HOUR + 600}, 9),
        ([Work(100, 110, 90, 1)], {"until": 105}, 9),  # the clock of another host may be ahead of ours
        ([Work(200, 110, 90, 1), Work(0, 10, 10, 1)], {}, 1),
    ],
)
def test_images_per_second_in_which_anybody_worked(
    work: list[Work], window: dict[str, float], images_per_second: float | None
) -> None:
    rate = rate_of(work, **window)
    assert (rate.images_per_second if rate else None) == pytest.approx(images_per_second)


def test_bytes_are_counted_like_images() -> None:
    rate = rate_of([Work(0, 20, 10, 4000), Work(10, 20, 10, 1000)], since=10)
    assert rate is not None
    assert (rate.images_per_second, rate.bytes_per_second) == (1.5, 300)
