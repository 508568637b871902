"""Between the uint8 pixels of images and the floats that a tokenizer takes."""

import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.records import Normalization


def normalize_pixels(img_B3HW: Tensor, normalization: Normalization) -> Tensor:
    """uint8 images [B, 3, H, W] to the float32 values that a tokenizer takes, on the same device.

    The result is in channels_last memory.

    Raises TokenizerError for another dtype: pixels that were scaled before would be scaled twice.
    """
    if img_B3HW.dtype != torch.uint8:
        raise TokenizerError(f"pixels must be uint8 from 0 to 255, not {img_B3HW.dtype}")
    pixels = img_B3HW.contiguous(memory_format=torch.channels_last).float()
    width = pixels.shape[3]
    # Repeated along the row: with three numbers to go by, the innermost loop would be three pixels long.
    mean_131W, std_131W = (
        values_311.reshape(1, 1, 1, 3).expand(1, 1, width, 3).contiguous().permute(0, 3, 1, 2)
        for values_311 in _channels(normalization, pixels.device)
    )
    return pixels.div_(255).sub_(mean_131W).div_(std_131W)


def to_pixels(img_B3HW: Tensor, normalization: Normalization) -> Tensor:
    """Undo `normalize_pixels`: floats of any range to uint8 [B, 3, H, W], rounded and clipped to 0 .. 255."""
    mean_311, std_311 = _channels(normalization, img_B3HW.device)
    return (img_B3HW.float() * std_311 + mean_311).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _channels(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, float32 [3, 1, 1] each."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=device).reshape(3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return mean, std
