"""What some GPUs could do at best, from their data sheets: dense products without sparsity."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """The limits of one GPU."""

    bf16_tflops: float
    """Tensor cores, 10^12 FLOP/s."""
    fp32_tflops: float
    """Outside tensor cores."""
    gb_per_second: float
    """Of its memory."""

    @property
    def search_tflops(self) -> float:
        """Of products with the error of float32: those, or three of TF32 at half the rate of bfloat16."""
        return max(self.fp32_tflops, self.bf16_tflops / 2 / 3)


PEAKS = {
    "B200": Peak(2250, 75, 8000),
    "H200": Peak(989, 67, 4800),
    "H100 PCIe": Peak(756, 51, 2000),
    "H100 NVL": Peak(835, 60, 3900),
    "H100": Peak(989, 67, 3350),
    "A100-SXM4-80GB": Peak(312, 19.5, 2039),
    "A100 80GB PCIe": Peak(312, 19.5, 1935),
    "A100": Peak(312, 19.5, 1555),
    "L40S": Peak(362, 91.6, 864),
    "L4": Peak(121, 30.3, 300),
    "A10G": Peak(70, 35, 600),
    "RTX 4090": Peak(165, 82.6, 1008),
    "RTX 3090": Peak(71, 35.6, 936),
}
"""By a part of the name that CUDA gives; the first that fits counts."""


def peak_of(name: str) -> Peak | None:
    """The limits of the GPU with this name, None for one that is not in the table."""
    return next((peak for part, peak in PEAKS.items() if re.search(rf"\b{re.escape(part)}\b", name)), None)
