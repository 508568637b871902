"""Between the uint8 pixels of images and the floats that a tokenizer takes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.errors import TokenizerError
from pipeline.records import Normalization


class Normalizer:
    """Turns uint8 images into the float32 values that a tokenizer takes.

    Mean and standard deviation go to a device once, for every batch that goes up there waits for the device.
    """

    def __init__(self, normalization: Normalization) -> None:
        self._normalization = normalization
        self._placed: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, img_B3HW: Tensor) -> Tensor:
        """Images [B, 3, H, W] as float32 on the same device, in channels_last memory.

        Raises TokenizerError for another dtype than uint8: pixels that were scaled before would be scaled twice.
        """
        if img_B3HW.dtype != torch.uint8:
            raise TokenizerError(f"pixels must be uint8 from 0 to 255, not {img_B3HW.dtype}")
        place = img_B3HW.device, img_B3HW.shape[3]
        mean_131W, std_131W = self._placed.get(place) or self._place(*place)
        pixels = img_B3HW.contiguous(memory_format=torch.channels_last).float()
        return pixels.div_(255).sub_(mean_131W).div_(std_131W)

    def _place(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        # Repeated along the row: with three numbers to go by, the innermost loop would be three pixels long. On the
        # host: a copy from there is waited for, and other threads read on other streams.
        mean_131W, std_131W = (
            values_311.reshape(1, 1, 1, 3).expand(1, 1, width, 3).contiguous().permute(0, 3, 1, 2).to(device)
            for values_311 in _channels(self._normalization, torch.device("cpu"))
        )
        self._placed[device, width] = mean_131W, std_131W
        return mean_131W, std_131W


def normalize_pixels(img_B3HW: Tensor, normalization: Normalization) -> Tensor:
    """uint8 images [B, 3, H, W] to float32; see `Normalizer`, which is for many batches of one tokenizer."""
    return Normalizer(normalization)(img_B3HW)


class Pixels(nn.Module):
    """Normalisation and what follows it as one module, for torch's compiler.

    Args:
        encode: takes float32 images [B, 3, H, W].
    """

    mean_311: Tensor
    std_311: Tensor

    def __init__(self, encode: Callable[[Tensor], Tensor], normalization: Normalization) -> None:
        super().__init__()
        self._encode = encode
        mean_311, std_311 = _channels(normalization, torch.device("cpu"))
        self.register_buffer("mean_311", mean_311)
        self.register_buffer("std_311", std_311)

    def forward(self, img_B3HW: Tensor) -> Tensor:
        """What `encode` makes of uint8 images [B, 3, H, W]."""
        return self._encode((img_B3HW.float() / 255 - self.mean_311) / self.std_311)


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
