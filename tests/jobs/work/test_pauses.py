"""Pauses between looks."""

import time
from types import SimpleNamespace

import pytest

from pipeline.jobs.work import pauses
from pipeline.jobs.work.pauses import Pauses


def test_pauses_grow_to_a_limit_and_are_long_beside_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(pauses, "_JITTER", 0.0)
    waiting = Pauses(0.5)
    found = [waiting.next_s(looked=100.0) for _ in range(8)]
    assert found == pytest.approx([0.5 * 1.5**number for number in range(6)] + [5.0, 5.0])
    assert waiting.next_s(looked=97.0) == 15.0  # three seconds for a listing


def test_those_who_begin_together_do_not_look_together() -> None:
    pauses = [Pauses(0.5).next_s(time.monotonic()) for _ in range(20)]
    assert 0.4 <= min(pauses) < max(pauses) <= 0.6
