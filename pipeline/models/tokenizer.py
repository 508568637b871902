"""What tokenization knows of a tokenizer, and our own model in that form.

Shape letters: B images of H x W pixels, h and w grid sides, L_i tokens of block i, K codes, C their length.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.arithmetic import Arithmetic, float32_arithmetic
from pipeline.models.blocks import BlockLayout
from pipeline.models.folder import TokenizerIdentity
from pipeline.models.vqvae import SimpleVQVAE
from pipeline.records import JSON, Geometry, Normalization

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, eq=False)
class Codebook:
    """What the indices of a tokenizer stand for."""

    kind: Literal["table", "fsq", "implicit"]
    """`table`: a row each; `fsq`: a point of the lattice of `levels`; `implicit`: nothing that can be stored."""
    vocab_size: int
    """K, the number of codes."""
    embedding_dim: int
    """C, the length of a code."""
    table: npt.NDArray[np.float32] | None = None
    """Float32 [K, C], exactly what `idxBl_to_var_input` looks up; None for kinds without a table."""
    levels: tuple[int, ...] | None = None
    """Levels per dimension of `fsq` (https://arxiv.org/abs/2309.15505)."""


class Tokenizer(Protocol):
    """Everything that the jobs need of a tokenizer; any model that can say this is an equal guest."""

    @property
    def normalization(self) -> Normalization:
        """What the pixels given to `encode` must have gone through; see `normalize_pixels`."""

    @property
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def codebook(self) -> Codebook:
        """What the indices stand for."""

    @property
    def var_input(self) -> str:
        """`lookup` if embedding sequences are rows of the codebook; else the name of another rule."""

    def to(self, device: torch.device | str, precision: Precision = "fp32") -> Self:
        """Move to a device and choose the precision of the encoder. The code search is always float32."""

    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        """Normalised float32 images to idx_Bl: int64 [B, L_i] per block, on the tokenizer's device."""

    def decode(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """idx_Bl to normalised float32 images [B, 3, H, W]. Without a grid it is taken to be square.

        Raises TokenizerError saying why where that cannot be done.
        """

    def geometry(self, image_size: tuple[int, int]) -> Geometry:
        """How the tokens of an image (height, width) are laid out.

        Raises TokenizerError for a size that the tokenizer cannot take.
        """

    def identity(self) -> JSON:
        """All that decides token values, as JSON; weights as a digest."""


class VqvaeTokenizer:
    """`SimpleVQVAE` as a `Tokenizer`. It leaves the model's training mode and statistics alone."""

    var_input = "lookup"

    def __init__(
        self, model: SimpleVQVAE, layout: BlockLayout, normalization: Normalization, weights_digest: str
    ) -> None:
        self.model = model
        self.layout = layout
        self.normalization = normalization
        self.downsampling = model.downsampling
        self._weights_digest = weights_digest
        self._precision: Precision = "fp32"
        self._encodes = model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.quantize.embedding.weight.device

    @property
    def codebook(self) -> Codebook:
        table_KC = self.model.quantize.get_codebook().detach().float().cpu().numpy()
        return Codebook("table", vocab_size=len(table_KC), embedding_dim=table_KC.shape[1], table=table_KC)

    def to(self, device: torch.device | str, precision: Precision = "fp32") -> Self:
        """Move to a device and choose the precision of the encoder.

        `fp32` means float32 throughout: TF32, which torch allows in convolutions by default, is off. `tf32` is
        for CUDA. For `bf16` and `fp16` a copy of the encoder is made; the model itself stays float32.

        Raises TokenizerError for an unknown precision, ConfigError for one that the device lacks.
        """
        if precision not in _DTYPES:
            raise TokenizerError(f"no precision {precision!r}; known: {', '.join(_DTYPES)}")
        kind = torch.device(device).type
        if precision == "tf32" and kind != "cuda":
            raise ConfigError(f"tokenize.precision: tf32 is for CUDA, and this device is {kind}: set it to fp32")
        self._precision = precision
        # channels_last is what convolutions want, on CPUs and on GPUs with tensor cores.
        self.model.to(device).to(memory_format=torch.channels_last)
        self._encodes = self.model
        if _DTYPES[precision] != torch.float32:
            self._encodes = copy.deepcopy(self.model)
            self._encodes.encoder.to(_DTYPES[precision])
        return self

    @torch.no_grad()
    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] on any device to idx_Bl: int64 [B, L_i] per block.

        Raises TokenizerError for images that the model cannot take, and where its vectors are not finite:
        the search would give those some code all the same.
        """
        arithmetic: Arithmetic = "tf32" if self._precision == "tf32" else "ieee"
        pixels = img_B3HW.to(self.device).contiguous(memory_format=torch.channels_last)
        with float32_arithmetic(arithmetic), torch.autocast(self.device.type, enabled=False):
            z_BChw = self._encodes.encode(pixels)
        if not z_BChw.isfinite().all():
            raise TokenizerError(
                f"the encoder gave values that are not finite in {self._precision}; "
                "use precision bf16 or fp32, and if it persists train the tokenizer again"
            )
        return self.layout.split(self.model.quantize.search(z_BChw))

    @torch.no_grad()
    def decode(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """Block index lists on any device to normalised float32 images [B, 3, H, W].

        Raises TokenizerError as `SimpleVQVAE.idxBl_to_img` does.
        """
        with float32_arithmetic("ieee"), torch.autocast(self.device.type, enabled=False):
            return self.model.idxBl_to_img(idx_Bl, self.layout.name, grid).float()

    def geometry(self, image_size: tuple[int, int]) -> Geometry:
        grid = self.model.grid_of(*image_size)
        return Geometry(
            image_size=image_size,
            grid=grid,
            layout=self.layout.name,
            block_lengths=self.layout.block_lengths(grid),
            decodable=self.layout.decodable,
        )

    def identity(self) -> JSON:
        return TokenizerIdentity(
            architecture=type(self.model).__name__,
            arguments=self.model.arguments,
            normalization=self.normalization,
            downsampling=self.downsampling,
            weights=self._weights_digest,
        ).tree()


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
