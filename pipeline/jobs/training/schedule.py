"""The learning rate over the steps of a training."""

import math
from dataclasses import dataclass

from pipeline.config import TrainConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class WarmupThenCosine:
    """Factor on the learning rate: a linear rise over `warmup` steps, then a half cosine to 0 at `steps`."""

    warmup: int
    steps: int

    def __call__(self, step: int) -> float:
        """The factor for the step after `step` finished ones, in (0, 1] while that is below `steps`."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def require_peak(train: TrainConfig) -> None:
    """Raise ConfigError for a schedule that never comes to `train.learning_rate`."""
    if train.warmup_steps >= train.steps:
        raise ConfigError(
            f"train.warmup_steps: a warm-up of {train.warmup_steps} steps does not end within the {train.steps} of "
            f"train.steps, so train.learning_rate would never be reached; set train.warmup_steps below {train.steps}, "
            f"such as {train.steps // 10}, or raise train.steps"
        )
