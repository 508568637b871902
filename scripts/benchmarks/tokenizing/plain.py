"""Tokens as people compute them: PIL and torchvision transforms, the model as it comes, all distances at once."""

import torch
from torch import Tensor
from torchvision import transforms

from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.records import Normalization


def plain_transform(side: int, normalization: Normalization) -> transforms.Compose:
    """PIL image to normalised float32 [3, side, side]."""
    return transforms.Compose(
        [
            transforms.Resize(side, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(normalization.mean, normalization.std),
        ]
    )


@torch.no_grad()
def plain_tokens(model: SimpleVQVAE | Vqgan, img_B3HW: Tensor) -> Tensor:
    """Normalised images to int64 [B, h*w], by the whole matrix of distances |z|² + |e|² − 2 z·e."""
    z_BChw = model.encoder(img_B3HW)
    z_NC = z_BChw.permute(0, 2, 3, 1).reshape(-1, z_BChw.shape[1])
    codes_KC = model.quantize.embedding.weight
    distances_NK = (z_NC**2).sum(1, keepdim=True) + (codes_KC**2).sum(1) - 2 * z_NC @ codes_KC.T
    indices_BL: Tensor = distances_NK.argmin(1).reshape(len(img_B3HW), -1)
    return indices_BL
