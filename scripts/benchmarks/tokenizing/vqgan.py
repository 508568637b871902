"""LlamaGen's VQ-16 (https://arxiv.org/abs/2406.06525) with random weights: what a published tokenizer costs."""

from pathlib import Path
from types import MethodType

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.folder.contents import WEIGHTS, FolderConfig, write_folder
from pipeline.models.folder.weights import files_digest
from pipeline.models.networks.state import inference_state
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.blocks import Residual
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqgan.norms import GroupNorm
from pipeline.models.tokenizers.vqgan.grids import GridIdentity
from pipeline.records import Normalization

_MULTIPLIERS = (1, 1, 2, 2, 4)


def random_vqgan(vocab_size: int = 16_384, embedding_dim: int = 8, channels: int = 128) -> Vqgan:
    """An untrained one, the same every time: 16 pixels a token along each side, and 72 million parameters, of which 29
    million are the encoder's, with the channels of the published one."""
    torch.manual_seed(0)
    widths = tuple(multiplier * channels for multiplier in _MULTIPLIERS)
    lowest = tuple(width == widths[-1] for width in widths)
    architecture = Architecture(
        encoder=Coder(widths=widths, depth=2, attention=lowest, middle_attention=True),
        decoder=Coder(widths=widths, depth=3, attention=lowest, middle_attention=True),
        stem=channels,
        latent=2 * channels,
        quant_kernel=1,
        vocab_size=vocab_size,
        embedding_dim=embedding_dim,
    )
    return Vqgan(architecture, cosine=True).eval()


def as_published(model: Vqgan) -> Vqgan:
    """The same network, computed as published modules do: SiLU as x * sigmoid(x), and nothing in place."""
    for module in model.modules():
        if isinstance(module, GroupNorm):
            module.silu = MethodType(_silu, module)  # type: ignore[method-assign]
        elif isinstance(module, Residual):
            module.forward = MethodType(_residual, module)  # type: ignore[method-assign]
    return model


def _silu(norm: GroupNorm, x_BDHW: Tensor) -> Tensor:
    normed_BDHW = F.group_norm(x_BDHW, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return normed_BDHW * normed_BDHW.sigmoid()


def _residual(block: Residual, x_BDHW: Tensor) -> Tensor:
    h_BDHW = block.conv1(block.norm1.silu(x_BDHW))
    h_BDHW = block.conv2(block.norm2.silu(h_BDHW))
    out: Tensor = block.shortcut(x_BDHW) + h_BDHW
    return out


def save_vqgan(folder: Path, model: Vqgan) -> None:
    """Write a tokenizer folder of the kind `llamagen`."""
    files = {WEIGHTS: inference_state(model)}
    identity = GridIdentity(
        architecture=model.architecture, cosine=True, normalization=Normalization(), weights=files_digest(files)
    )
    write_folder(folder, FolderConfig(kind="llamagen", identity=identity.tree()), files)
