"""A torch network with a code search as a tokenizer.

Shape letters: B images of H x W pixels, h and w grid sides, L_i tokens of block i, K codes, C their length.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.arithmetic import Arithmetic, float32_arithmetic
from pipeline.models.layouts.layout import BlockLayout, Indices
from pipeline.models.networks.search_fused import FusedSearch
from pipeline.models.networks.search_trial import Searcher, use_if_equal
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.lookup import LOOKUP
from pipeline.models.rules.rule import Rule
from pipeline.models.tokenizers.protocol import NO_TOKEN, Codebook, Precision, not_finite
from pipeline.records import JSON, Geometry, Normalization

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Quantizer(Protocol):
    """The part of a network that finds codes, always in float32."""

    def get_codebook(self) -> Tensor:
        """The table [K, C] that embedding sequences are made of."""

    def search(self, z_BChw: Tensor, /) -> Indices:
        """The indices of vectors [B, C, h, w]: what the layouts of the tokenizer split."""


class TokenNetwork(Protocol):
    """What `NetworkTokenizer` needs of a torch module."""

    @property
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def encoder(self) -> nn.Module:
        """All that runs in the precision asked for."""

    @property
    def quantize(self) -> Quantizer:
        """Where codes are found."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As of any torch module."""

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) for an image of so many pixels. Raises TokenizerError for a size that it cannot take."""

    def encode(self, img_B3HW: Tensor, /) -> Tensor:
        """Images to vectors [B, C, h, w], in the dtype of the encoder. Raises TokenizerError for other input."""

    def decode_indices(self, idx: Indices, /) -> Tensor:
        """Indices, as `search` finds them, to images [B, 3, H, W]. Raises TokenizerError where that cannot be done."""


class NetworkTokenizer:
    """A network as a `Tokenizer`. It leaves the network's training mode and statistics alone.

    Args:
        identity: what the tokenizer says of itself, `TokenizerFolder.identity_json`.
        rule_arrays: those that the rule names.
        decodes: whether the network can make images of indices.
    """

    def __init__(
        self,
        model: TokenNetwork,
        layout: BlockLayout,
        normalization: Normalization,
        identity: JSON,
        rule: Rule = LOOKUP,
        rule_arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        decodes: bool = True,
    ) -> None:
        self.model = model
        self.layout = layout
        self.normalization = normalization
        self.downsampling = model.downsampling
        self.rule = rule
        self.rule_arrays = rule_arrays or {}
        self._decodes = decodes
        self._identity = identity
        self._precision: Precision = "fp32"
        self._encodes = model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.encoder.parameters()).device

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
        _channels_last(self.model.to(device))
        self._encodes = self.model
        if _DTYPES[precision] != torch.float32:
            self._encodes = copy.deepcopy(self.model)
            self._encodes.encoder.to(_DTYPES[precision])
        return self

    def use_fast_search(self, images: int, image_size: tuple[int, int]) -> str | None:
        """On CUDA, search by a kernel that needs no matrix of distances. See `FastSearch`."""
        quantize = self.model.quantize
        if self.device.type != "cuda" or not isinstance(quantize, Searcher):
            return None
        try:
            search = FusedSearch()
        except ImportError as error:
            raise TokenizerError(str(error)) from error
        use_if_equal(search, quantize, images, self.model.grid_of(*image_size))
        return search.name

    @torch.no_grad()
    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] on any device to idx_Bl: int64 [B, L_i] per block.

        Raises TokenizerError for images that the model cannot take, and where its vectors are not finite: the search
        would give those some code all the same. On an accelerator, where to look would be to wait for it, all tokens of
        such an image are NO_TOKEN instead.
        """
        arithmetic: Arithmetic = "tf32" if self._precision == "tf32" else "ieee"
        pixels = img_B3HW.to(self.device).contiguous(memory_format=torch.channels_last)
        with float32_arithmetic(arithmetic), torch.autocast(self.device.type, enabled=False):
            z_BChw = self._encodes.encode(pixels)
        finite_B = z_BChw.isfinite().flatten(1).all(dim=1)
        if z_BChw.is_cpu and not finite_B.all():
            raise not_finite(self._precision)
        blocks = self.layout.split(self.model.quantize.search(z_BChw))
        return blocks if z_BChw.is_cpu else [block.where(finite_B[:, None], NO_TOKEN) for block in blocks]

    @torch.no_grad()
    def decode(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """Block index lists on any device to normalised float32 images [B, 3, H, W].

        Raises TokenizerError as `BlockLayout.join` and the network do.
        """
        with float32_arithmetic("ieee"), torch.autocast(self.device.type, enabled=False):
            return self.model.decode_indices(self.layout.join(idx_Bl, grid)).float()

    @torch.no_grad()
    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor]) -> Tensor:
        """Block index lists to the embedding sequence x_BLC, float32 [B, L_rule, C], by the rule of the tokenizer.

        A store gives the same without the model. Raises TokenizerError as the rule does.
        """
        codebook_KC = self.model.quantize.get_codebook().detach().float()
        arrays = {name: torch.from_numpy(array) for name, array in self.rule_arrays.items()}
        return Embedder(self.rule, codebook_KC, arrays)(idx_Bl)

    def geometry(self, image_size: tuple[int, int]) -> Geometry:
        grid = self.model.grid_of(*image_size)
        return Geometry(
            image_size=image_size,
            grid=grid,
            layout=self.layout.name,
            block_lengths=self.layout.block_lengths(grid),
            decodable=self.layout.decodable and self._decodes,
        )

    def identity(self) -> JSON:
        return copy.deepcopy(self._identity)


def _channels_last(model: nn.Module) -> None:
    """As `Module.to` does it, which cannot where there are tensors of five dimensions."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
