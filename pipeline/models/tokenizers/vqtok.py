"""Our own kind of tokenizer: what `vqtok train` makes.

Another kind is a module like this one, with a `KIND`, and a line in `registry.KINDS`. Nothing here imports torch
before a tokenizer is saved or loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import CONFIG, WEIGHTS, Count, FolderConfig, TokenizerFolder, write_folder
from pipeline.models.folder.weights import files_digest
from pipeline.models.layouts.cuts import CUTS
from pipeline.models.layouts.layout import BlockLayout
from pipeline.models.layouts.scales import Scales, growing
from pipeline.models.networks.vqgan.architecture import Architecture
from pipeline.models.tokenizers.kind import Kind
from pipeline.records import JSON, Normalization, Record

if TYPE_CHECKING:
    from pipeline.models.networks.vqgan.model import Vqgan
    from pipeline.models.networks.vqvae import SimpleVQVAE
    from pipeline.models.tokenizers.protocol import Tokenizer

_NETWORK = "SimpleVQVAE"
_VQGAN = "Vqgan"


class Arguments(Record):
    """What decides the computation of a trained `SimpleVQVAE`; see `ModelConfig` for the meaning."""

    model_config = ConfigDict(strict=True)

    vocab_size: Count
    embedding_dim: Count
    hidden_dim: Count
    residual_blocks: Annotated[int, Field(ge=0)]
    final_relu: bool
    cosine: bool


class VqtokIdentity(Record):
    """`identity` in config.json, which stores compare and keep."""

    architecture: Literal["SimpleVQVAE"]
    """Name of the network's class."""
    arguments: Arguments
    normalization: Normalization
    """What the pixels have gone through."""
    downsampling: Count
    """Pixels per token along each side."""
    weights: str
    """Digest of what model.safetensors holds."""


class VqganArguments(Record):
    """What decides the computation of a trained `Vqgan`."""

    architecture: Architecture
    cosine: Annotated[bool, Field(strict=True)]
    patch_nums: Annotated[tuple[int, ...], AfterValidator(growing)] | None = None
    """Tokens along the side of each scale; None for one grid."""
    phis: Count | None = None
    """Convolutions that the scales share."""


class VqganIdentity(Record):
    """The same of a network of the VQ-GAN family."""

    architecture: Literal["Vqgan"]
    arguments: VqganArguments
    normalization: Normalization
    downsampling: Count
    weights: str


Identity = VqtokIdentity | VqganIdentity


def save_tokenizer(
    folder: str | os.PathLike[str],
    model: SimpleVQVAE | Vqgan,
    normalization: Normalization,
    train_summary: JSON | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Write a tokenizer folder, or replace the one there; each file appears at once and whole.

    It holds what inference needs; what the quantizer counts in training belongs to checkpoints.

    Raises TokenizerError when a weight is not finite, which is how diverged training ends.
    """
    from pipeline.models.networks.state import inference_state

    files = {WEIGHTS: inference_state(model)}
    arguments: JSON = dict(model.arguments)
    if "architecture" in arguments:
        arguments["architecture"] = arguments["architecture"].model_dump()
    identity = _identity(
        {
            "architecture": type(model).__name__,
            "arguments": arguments,
            "normalization": normalization.model_dump(),
            "downsampling": model.downsampling,
            "weights": files_digest(files),
        }
    )
    config = FolderConfig(identity=identity.tree(), image_size=image_size, train=train_summary)
    write_folder(folder, config, files)


def _identity(tree: JSON) -> Identity:
    name = tree.get("architecture", _NETWORK)
    if name == _VQGAN:
        return VqganIdentity.model_validate(tree)
    if name != _NETWORK:
        raise ValueError(f"unknown architecture {name!r}; known: {_NETWORK}, {_VQGAN}")
    return VqtokIdentity.model_validate(tree)


def _layouts(identity: Identity) -> tuple[BlockLayout, ...]:
    if isinstance(identity, VqganIdentity) and identity.arguments.patch_nums is not None:
        return (Scales(identity.arguments.patch_nums),)
    return tuple(CUTS.values())


def _load(folder: TokenizerFolder[Identity], layout: BlockLayout) -> Tokenizer:
    from pipeline.models.networks.budget import within
    from pipeline.models.networks.state import load_state
    from pipeline.models.rules.lookup import LOOKUP
    from pipeline.models.rules.multiscale import MULTISCALE
    from pipeline.models.tokenizers.network import NetworkTokenizer

    identity = folder.identity
    with within(folder.files[WEIGHTS], folder.path):
        model = _network(identity)
    if model.downsampling != identity.downsampling:
        raise TokenizerError(
            f"{folder.path / CONFIG}: identity.downsampling is {identity.downsampling}, "
            f"but {identity.architecture} has {model.downsampling}; correct it"
        )
    load_state(model, folder.files[WEIGHTS], folder.path / WEIGHTS)
    arrays = model.quantize.rule_arrays()
    rule = MULTISCALE if arrays else LOOKUP
    return NetworkTokenizer(model.eval(), layout, identity.normalization, folder.identity_json(), rule, arrays)


def _network(identity: Identity) -> SimpleVQVAE | Vqgan:
    from pipeline.models.networks.vqgan.model import Vqgan
    from pipeline.models.networks.vqvae import SimpleVQVAE

    if isinstance(identity, VqtokIdentity):
        return SimpleVQVAE(**identity.arguments.model_dump())
    arguments = identity.arguments
    return Vqgan(
        arguments.architecture,
        cosine=arguments.cosine,
        patch_nums=arguments.patch_nums,
        phis=arguments.phis or 1,
    )


KIND = Kind(_identity, _layouts, _load, own_layout="quadrants")
