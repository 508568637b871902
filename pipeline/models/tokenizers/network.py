"""Our own model as a tokenizer.

Shape letters: B images of H x W pixels, L_i tokens of block i, K codes, C their length.
"""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.folder.contents import TokenizerIdentity
from pipeline.models.layouts.cuts import BlockLayout
from pipeline.models.networks.arithmetic import Arithmetic, float32_arithmetic
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.protocol import Codebook, Precision
from pipeline.records import JSON, Geometry, Normalization

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


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
