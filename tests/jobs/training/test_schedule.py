"""The learning rate of every step."""

import pytest

from pipeline.jobs.training.schedule import WarmupThenCosine


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [WarmupThenCosine(warmup=4, steps=12)(step) for step in range(13)]
    assert factors[:4] == [0.2, 0.4, 0.6, 0.8]
    assert factors[4] == 1
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[11] > 0
    assert factors[12] == pytest.approx(0)
