"""Models of diffusers and transformers as networks of tokens. The code search is ours, in float32.

Shape letters: B images of H x W pixels, C length of a code, h and w grid sides.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import TokenizerError
from pipeline.models.networks.images import check_images, whole_grid
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.tokenizers.trust import TOKENS, compare, fixed_images

_MOST_DOWNSAMPLING = 128
_MOST_FRAMES = 64


class GuestNetwork(nn.Module):
    """A model with an encoder, a convolution behind it, and a table of codes that are compared by distance."""

    decodes = True
    """Whether the model makes images of codes."""

    def __init__(self, model: nn.Module, downsampling: int) -> None:
        super().__init__()
        if downsampling > _MOST_DOWNSAMPLING:
            raise ValueError(f"{downsampling} pixels for each token, and at most {_MOST_DOWNSAMPLING} are taken")
        self.model: Any = model
        self.encoder = self._encoder()
        self.downsampling = downsampling
        table: nn.Parameter = model.get_parameter("quantize.embedding.weight")
        self.quantize = VectorQuantizer(*table.shape)
        self.quantize.embedding.weight = table

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns of an image. Raises TokenizerError for one of no whole grid."""
        return whole_grid(height, width, self.downsampling)

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Images to vectors [B, C, h, w], in the dtype of the encoder. Raises TokenizerError for other input."""
        check_images(img_B3HW)
        self.grid_of(*img_B3HW.shape[2:])
        z_BChw: Tensor = self.encoder(img_B3HW.to(next(self.encoder.parameters()).dtype))
        return z_BChw

    def decode_indices(self, idx_Bhw: Tensor) -> Tensor:
        """Indices [B, h, w] to images [B, 3, H, W].

        Raises TokenizerError as `lookup` does, and where there is no decoder.
        """
        raise TokenizerError(
            f"{type(self.model).__name__} has no decoder: its tokens cannot be turned back into images"
        )

    def used(self, img_B3HW: Tensor) -> Tensor:
        """The codes [B, C, h, w] that the model itself uses for images."""
        raise NotImplementedError

    def _encoder(self) -> nn.Module:
        return nn.Sequential(self.model.encoder, self.model.quant_conv)


class DiffusersNetwork(GuestNetwork):
    """`diffusers.VQModel`, whose `encode` gives vectors."""

    def decode_indices(self, idx_Bhw: Tensor) -> Tensor:
        q_BChw = self.quantize.features(idx_Bhw).contiguous()
        # As vectors, whatever `lookup_from_codebook` says: with it, `decode` would look indices up.
        spatial = q_BChw if self.model.config.norm_type == "spatial" else None
        img_B3HW: Tensor = self.model.decoder(self.model.post_quant_conv(q_BChw), spatial)
        return img_B3HW

    def used(self, img_B3HW: Tensor) -> Tensor:
        codes_BChw, _, found = self.model.quantize(self.model.encode(img_B3HW).latents)
        B, _, h, w = codes_BChw.shape
        compare(self.quantize.features(found[2].reshape(B, h, w)), codes_BChw, Path("VQModel"))
        return codes_BChw  # type: ignore[no-any-return]


class ChameleonNetwork(GuestNetwork):
    """`transformers.ChameleonVQVAE`, which only encodes."""

    decodes = False

    def used(self, img_B3HW: Tensor) -> Tensor:
        found = self.model.encode(img_B3HW)
        # Version 4 gives a tuple whose first is this.
        codes_BChw: Tensor = found[0] if isinstance(found, tuple) else found.quantized_last_hidden_state
        return codes_BChw


class Emu3Network(GuestNetwork):
    """`transformers.Emu3VQVAE`, which takes an image for so many frames of a video."""

    def decode_indices(self, idx_Bhw: Tensor) -> Tensor:
        self.quantize.features(idx_Bhw)  # where an index is outside the table, it says so
        img_B3HW: Tensor = self.model.decode(idx_Bhw.long())
        return img_B3HW

    def used(self, img_B3HW: Tensor) -> Tensor:
        sizes = torch.tensor([img_B3HW.shape[2:]] * len(img_B3HW))
        found = self.model.encode(img_B3HW, image_sizes=sizes)
        grids = getattr(found, "image_tokens", found)  # version 4 gives the list itself
        codes_BhwC: Tensor = self.model.quantize.embedding(torch.stack(list(grids)))
        return codes_BhwC.permute(0, 3, 1, 2)

    def _encoder(self) -> nn.Module:
        return _Frames(self.model)


class _Frames(nn.Module):
    """The encoder of a model of videos, for images."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.frames: int = model.config.temporal_downsample_factor
        if not 0 < self.frames <= _MOST_FRAMES:
            raise ValueError(f"temporal_downsample_factor {self.frames}, and at most {_MOST_FRAMES} frames are taken")
        self.encoder, self.quant_conv = model.encoder, model.quant_conv

    def forward(self, img_B3HW: Tensor) -> Tensor:
        h_BtDhw = self.encoder(img_B3HW.unsqueeze(1).repeat(1, self.frames, 1, 1, 1))
        z_BCthw: Tensor = self.quant_conv(h_BtDhw.transpose(1, 2))
        return z_BCthw[:, :, 0]


def network_of(name: str, library: Any, config: Mapping[str, Any]) -> GuestNetwork:
    """An untrained network of a library's class. Raises TokenizerError for a configuration that it refuses."""
    try:
        if name == "VQModel":
            model = library.VQModel.from_config(dict(config))
            return DiffusersNetwork(model, 1 << (len(config["block_out_channels"]) - 1))
        kinds = {"ChameleonVQVAE": ChameleonNetwork, "Emu3VQVAE": Emu3Network}
        settings = getattr(library, f"{name}Config").from_dict(dict(config))
        return kinds[name](getattr(library, name)(settings), 1 << (len(settings.channel_multiplier) - 1))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{name} cannot be built of its configuration: {error}") from error


@torch.no_grad()
def try_out(network: GuestNetwork, path: Path) -> None:
    """Raise TokenizerError unless the model itself uses the codes that our indices stand for.

    Args:
        path: of the folder, for the error.
    """
    img_B3HW = fixed_images(TOKENS * network.downsampling)
    try:
        used_BChw = network.used(img_B3HW)
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise TokenizerError(
            f"{path}: {type(network.model).__name__} of this version of its library encodes in another way: {error}"
        ) from error
    compare(used_BChw, network.quantize.features(network.quantize.search(network.encode(img_B3HW))), path)
