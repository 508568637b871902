"""A large convolutional tokenizer as a guest of vqtok: the encoder of a VQ-GAN (https://arxiv.org/abs/2012.09841).

Residual blocks with group norm and SiLU, attention at the lowest resolution, codes compared by direction
(https://arxiv.org/abs/2110.04627). Untrained, and without a decoder: it is here for what encoding costs.

Shape letters: B images of H x W pixels, h and w grid sides, N = h*w tokens, D channels, C length of a code.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import WEIGHTS, FolderConfig, TokenizerFolder, write_folder
from pipeline.models.folder.weights import files_digest
from pipeline.models.layouts.cuts import CUTS, GridCut
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.networks.state import inference_state, load_state
from pipeline.models.rules.lookup import LOOKUP
from pipeline.models.tokenizers.kind import Kind
from pipeline.models.tokenizers.protocol import Codebook, Precision
from pipeline.models.tokenizers.registry import KINDS
from pipeline.records import JSON, Geometry, Normalization, Record

_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_KIND = "vqgan-encoder"
_GROUPS = 32
_MULTIPLIERS = (1, 1, 2, 2, 4)
_BLOCKS = 2


class Residual(nn.Module):
    """x + two 3x3 convolutions of x, each after group norm and SiLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(_GROUPS, inner),
            nn.SiLU(),
            nn.Conv2d(inner, outer, 3, padding=1),
            nn.GroupNorm(_GROUPS, outer),
            nn.SiLU(),
            nn.Conv2d(outer, outer, 3, padding=1),
        )
        self.skip = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        out: Tensor = self.skip(x_BDhw) + self.body(x_BDhw)
        return out


class Attention(nn.Module):
    """x + attention of one head between all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        q_BND, k_BND, v_BND = self.qkv(self.norm(x_BDhw)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        mixed_BND = F.scaled_dot_product_attention(q_BND[:, None], k_BND[:, None], v_BND[:, None])[:, 0]
        out: Tensor = x_BDhw + self.out(mixed_BND.transpose(1, 2).reshape(x_BDhw.shape))
        return out


class VqganEncoder(nn.Module):
    """Images to vectors at 1/16 of their sides; 66 million parameters with 192 channels."""

    downsampling = 16
    """Pixels per token along each side."""

    def __init__(self, vocab_size: int = 16_384, embedding_dim: int = 8, channels: int = 192) -> None:
        super().__init__()
        self.arguments = {"vocab_size": vocab_size, "embedding_dim": embedding_dim, "channels": channels}
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
        inner = channels
        for level, multiplier in enumerate(_MULTIPLIERS):
            lowest = level == len(_MULTIPLIERS) - 1
            for _ in range(_BLOCKS):
                layers.append(Residual(inner, multiplier * channels))
                inner = multiplier * channels
                layers += [Attention(inner)] if lowest else []
            layers += [] if lowest else [nn.Conv2d(inner, inner, 3, stride=2, padding=1)]
        layers += [Residual(inner, inner), Attention(inner), Residual(inner, inner)]
        layers += [nn.GroupNorm(_GROUPS, inner), nn.SiLU(), nn.Conv2d(inner, embedding_dim, 1)]
        self.encoder = nn.Sequential(*layers)
        self.quantize = VectorQuantizer(vocab_size, embedding_dim, cosine=True)

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Vectors [B, C, h, w] in the dtype of autocast."""
        z_BChw: Tensor = self.encoder(img_B3HW)
        return z_BChw


class VqganTokenizer:
    """`VqganEncoder` as a `Tokenizer`, under autocast, as any model may be one."""

    rule = LOOKUP
    downsampling = VqganEncoder.downsampling

    def __init__(self, model: VqganEncoder, layout: GridCut, normalization: Normalization, identity: JSON) -> None:
        self.model = model
        self.layout = layout
        self.normalization = normalization
        self.rule_arrays: dict[str, Any] = {}
        self._identity = identity
        self._device = torch.device("cpu")
        self._dtype: torch.dtype | None = None

    @property
    def codebook(self) -> Codebook:
        table_KC = self.model.quantize.get_codebook().detach().cpu().numpy()
        return Codebook("table", vocab_size=len(table_KC), embedding_dim=table_KC.shape[1], table=table_KC)

    def to(self, device: torch.device | str, precision: Precision = "fp32") -> Self:
        """Move to a device; `bf16` and `fp16` are autocast."""
        self._device, self._dtype = torch.device(device), _DTYPES.get(precision)
        self.model.to(self._device).to(memory_format=torch.channels_last)
        return self

    @torch.no_grad()
    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        """Normalised images to idx_Bl, int64 [B, L_i] per block."""
        pixels = img_B3HW.to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            z_BChw = self.model.encode(pixels)
        return self.layout.split(self.model.quantize.search(z_BChw))

    def decode(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """Raises TokenizerError: there is no decoder."""
        raise TokenizerError(f"{type(self.model).__name__} has no decoder: it only measures encoding")

    def geometry(self, image_size: tuple[int, int]) -> Geometry:
        """Raises TokenizerError for sides that are not multiples of 16."""
        height, width = image_size
        if height % self.downsampling or width % self.downsampling:
            raise TokenizerError(f"{height}x{width} pixels: sides must be multiples of {self.downsampling}")
        grid = height // self.downsampling, width // self.downsampling
        return Geometry(
            image_size=image_size,
            grid=grid,
            layout=self.layout.name,
            block_lengths=self.layout.block_lengths(grid),
            decodable=False,
        )

    def identity(self) -> JSON:
        """All that decides tokens."""
        return self._identity


class VqganIdentity(Record):
    """What config.json says of it."""

    vocab_size: Annotated[int, Field(ge=2)]
    embedding_dim: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=_GROUPS, multiple_of=_GROUPS)]
    normalization: Normalization = Normalization()
    weights: str


def save_vqgan(folder: str | PathLike[str], model: VqganEncoder) -> None:
    """Write a tokenizer folder."""
    files = {WEIGHTS: inference_state(model)}
    identity = VqganIdentity(**model.arguments, weights=files_digest(files))
    write_folder(folder, FolderConfig(kind=_KIND, identity=identity.tree()), files)


def _load(folder: TokenizerFolder[VqganIdentity], layout: GridCut) -> VqganTokenizer:
    identity = folder.identity
    model = VqganEncoder(identity.vocab_size, identity.embedding_dim, identity.channels).eval()
    load_state(model, folder.files[WEIGHTS], folder.path / WEIGHTS)
    return VqganTokenizer(model, layout, identity.normalization, folder.identity_json())


KIND = Kind(VqganIdentity.model_validate, lambda identity: tuple(CUTS.values()), _load)


def register() -> None:
    """Let tokenizer folders name it, in this process."""
    KINDS[_KIND] = __name__


def random_vqgan(**arguments: Any) -> VqganEncoder:
    """An untrained one, the same every time."""
    torch.manual_seed(0)
    return VqganEncoder(**arguments).eval()
