"""Training on a CUDA device computes the same bits each time; elsewhere nothing is set."""

from typing import Any

import pytest
import torch

from pipeline.models.determinism import same_each_time


def settings() -> tuple[Any, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("warn_only", [True, False])
def test_it_holds_inside_and_the_settings_of_the_caller_come_back(
    warn_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_deterministic_debug_mode("warn" if warn_only else "default")
    before = settings()
    try:
        with pytest.raises(KeyError), same_each_time(torch.device("cuda")):
            assert settings() == (True, False, False, False)
            raise KeyError
        assert settings() == before
        with same_each_time(torch.device("cpu")):
            assert settings() == before
    finally:
        torch.set_deterministic_debug_mode("default")
