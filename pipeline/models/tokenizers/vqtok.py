"""Our own kind of tokenizer: what `vqtok train` makes.

Another kind is a module like this one, with a `KIND`, and a line in `registry.KINDS`. Nothing here imports torch
before a tokenizer is saved or loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import CONFIG, WEIGHTS, Count, FolderConfig, TokenizerFolder, write_folder
from pipeline.models.folder.weights import files_digest
from pipeline.models.layouts.cuts import CUTS, GridCut
from pipeline.models.tokenizers.kind import Kind
from pipeline.records import JSON, Normalization, Record

if TYPE_CHECKING:
    from pipeline.models.networks.vqvae import SimpleVQVAE
    from pipeline.models.tokenizers.protocol import Tokenizer

_NETWORK = "SimpleVQVAE"


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


def save_tokenizer(
    folder: str | os.PathLike[str],
    model: SimpleVQVAE,
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
    identity = VqtokIdentity(
        architecture=_NETWORK,
        arguments=Arguments.model_validate(model.arguments),
        normalization=normalization,
        downsampling=model.downsampling,
        weights=files_digest(files),
    )
    config = FolderConfig(identity=identity.tree(), image_size=image_size, train=train_summary)
    write_folder(folder, config, files)


def _identity(tree: JSON) -> VqtokIdentity:
    name = tree.get("architecture", _NETWORK)
    if name != _NETWORK:
        raise ValueError(f"unknown architecture {name!r}; known: {_NETWORK}")
    return VqtokIdentity.model_validate(tree)


def _layouts(identity: VqtokIdentity) -> tuple[GridCut, ...]:
    return tuple(CUTS.values())


def _load(folder: TokenizerFolder[VqtokIdentity], layout: GridCut) -> Tokenizer:
    from pipeline.models.networks.state import load_state
    from pipeline.models.networks.vqvae import SimpleVQVAE
    from pipeline.models.tokenizers.network import NetworkTokenizer

    identity = folder.identity
    model = SimpleVQVAE(**identity.arguments.model_dump())
    if model.downsampling != identity.downsampling:
        raise TokenizerError(
            f"{folder.path / CONFIG}: identity.downsampling is {identity.downsampling}, "
            f"but {identity.architecture} has {model.downsampling}; correct it"
        )
    load_state(model, folder.files[WEIGHTS], folder.path / WEIGHTS)
    return NetworkTokenizer(model.eval(), layout, identity.normalization, folder.identity_json())


KIND = Kind(_identity, _layouts, _load, own_layout="quadrants")
