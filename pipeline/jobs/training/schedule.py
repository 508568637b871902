"""The learning rate over the steps of a training."""

import math
from dataclasses import dataclass


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
