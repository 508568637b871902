"""The network of the kind in `guest_kind`, and its rule."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from guest_kind import PROJECTION, TABLES, ProjectionIdentity
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import TokenizerFolder
from pipeline.models.layouts.layout import BlockLayout
from pipeline.models.networks.search import nearest_codes
from pipeline.models.rules.lookup import lookup
from pipeline.models.tokenizers.network import NetworkTokenizer


class RunningSum:
    """A `Rule` of one token more than there are: the sum of a first vector and of all codes before and at each."""

    name = "running-sum"
    arrays = ("start",)
    picks_rows = False

    def sequence_length(self, block_lengths: Sequence[int]) -> int:
        return 1 + sum(block_lengths)

    def apply(self, idx_Bl: Sequence[Tensor], codebook_KC: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        codes_BLC = lookup(torch.cat(list(idx_Bl), dim=1), codebook_KC)
        start_B1C = arrays["start"].expand(len(codes_BLC), 1, -1)
        return torch.cat([start_B1C, codes_BLC], dim=1).cumsum(dim=1)


class TwoScales(nn.Module):
    """Codes the mean of all vectors, then what is left of each."""

    def __init__(self, codes_KC: Tensor) -> None:
        super().__init__()
        self.codes_KC = nn.Parameter(codes_KC)

    def get_codebook(self) -> Tensor:
        return self.codes_KC

    def search(self, z_BChw: Tensor) -> list[Tensor]:
        z_BChw = z_BChw.float()
        whole_B11 = self._nearest(z_BChw.mean(dim=(2, 3), keepdim=True))
        rest_BChw = z_BChw - self.codes_KC[whole_B11].permute(0, 3, 1, 2)
        return [whole_B11, self._nearest(rest_BChw)]

    def _nearest(self, z_BChw: Tensor) -> Tensor:
        z_BhwC = z_BChw.permute(0, 2, 3, 1)
        return nearest_codes(z_BhwC.reshape(-1, z_BhwC.shape[-1]), self.codes_KC).reshape(z_BhwC.shape[:3])


class Projection(nn.Module):
    """Patches to vectors by a linear map, and back by its transpose."""

    def __init__(self, projection_C3pp: Tensor, codes_KC: Tensor) -> None:
        super().__init__()
        length, _, self.downsampling, _ = projection_C3pp.shape
        self.encoder = nn.Conv2d(3, length, self.downsampling, stride=self.downsampling, bias=False)
        self.encoder.weight = nn.Parameter(projection_C3pp)
        self.quantize = TwoScales(codes_KC)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        if height % self.downsampling or width % self.downsampling:
            raise TokenizerError(f"{height} x {width} pixels are no whole patches")
        return height // self.downsampling, width // self.downsampling

    def encode(self, img_B3HW: Tensor) -> Tensor:
        z_BChw: Tensor = self.encoder(img_B3HW.to(self.encoder.weight.dtype))
        return z_BChw

    def decode_indices(self, idx: list[Tensor]) -> Tensor:
        whole_B11, idx_Bhw = idx
        q_BhwC = self.quantize.codes_KC[whole_B11] + self.quantize.codes_KC[idx_Bhw]
        return nn.functional.conv_transpose2d(q_BhwC.permute(0, 3, 1, 2), self.encoder.weight, stride=self.downsampling)


def load(folder: TokenizerFolder[ProjectionIdentity], layout: BlockLayout) -> NetworkTokenizer:
    """The tokenizer in a folder."""
    tensors = load_tensors(folder.files[PROJECTION])
    codes_KC = torch.from_numpy(np.load(io.BytesIO(folder.files[TABLES])))
    return NetworkTokenizer(
        Projection(tensors["projection"], codes_KC),
        layout,
        folder.identity.normalization,
        folder.identity_json(),
        RunningSum(),
        {"start": tensors["start"].numpy()},
    )
