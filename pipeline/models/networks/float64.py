"""Float64 on devices that have none."""

import torch
from torch import Tensor


def in_float64(x: Tensor) -> Tensor:
    """x in float64: on its device, or on the CPU where the device is an Apple GPU, which has no such numbers."""
    return x.to("cpu" if x.device.type == "mps" else x.device, torch.float64)
