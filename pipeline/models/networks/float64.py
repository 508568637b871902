"""Float64 on devices that have none."""

import torch
from torch import Tensor

_WITH = ("cpu", "cuda", "xpu")


def in_float64(x: Tensor) -> Tensor:
    """x in float64: on its device, or on the CPU where the device may have none, as an Apple GPU."""
    return x.to(x.device if x.device.type in _WITH else "cpu", torch.float64)
