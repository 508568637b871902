"""Tokenizer folders: written after training, loaded for tokenization.

Saving and loading import torch, and nothing before them does: a command that only asks for an identity answers
in a fraction of the time that the import takes.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import TokenizerError
from pipeline.files import LocalFiles
from pipeline.models.architectures import ARCHITECTURES, TokenizerModel
from pipeline.models.blocks import layout_named
from pipeline.models.folder import (
    CONFIG,
    WEIGHTS,
    FolderConfig,
    TokenizerIdentity,
    read_folder,
    tokenizer_identity,
)
from pipeline.models.weights import tensor_entries, weights_digest
from pipeline.records import JSON, Normalization

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.models.tokenizer import Precision, Tokenizer

__all__ = ["load_tokenizer", "save_tokenizer", "tokenizer_identity"]


def save_tokenizer(
    folder: str | os.PathLike[str],
    model: TokenizerModel,
    normalization: Normalization,
    train_summary: JSON | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Write a tokenizer folder, or replace the one there; each file appears at once and whole.

    It holds what inference needs; what the quantizer counts in training belongs to checkpoints. config.json
    comes last and holds a digest of the weights, so a folder caught between the two is noticed.

    Raises TokenizerError when a weight is not finite, which is how diverged training ends.
    """
    weights = _serialize(model)
    config = FolderConfig(
        identity=TokenizerIdentity(
            architecture=type(model).__name__,
            arguments=dict(model.arguments),
            normalization=normalization,
            downsampling=model.downsampling,
            weights=weights_digest(weights),
        ),
        image_size=image_size,
        train=train_summary,
    )
    files = LocalFiles(folder)
    files.put(WEIGHTS, weights)
    files.put(CONFIG, config.to_json())


def load_tokenizer(
    folder: str | os.PathLike[str],
    layout: str,
    device: "torch.device | str" = "cpu",
    precision: "Precision" = "fp32",
) -> "Tokenizer":
    """The tokenizer in a folder, ready to encode on `device`.

    Raises TokenizerError naming the file and the remedy, and ConfigError for an unknown layout.
    """
    block_layout = layout_named(layout)
    config, weights = read_folder(folder)
    identity = config.identity
    architecture = ARCHITECTURES[identity.architecture]
    model = architecture.model_class()(**identity.arguments)
    if model.downsampling != identity.downsampling:
        raise TokenizerError(
            f"{Path(folder, CONFIG)}: identity.downsampling is {identity.downsampling}, "
            f"but {identity.architecture} has {model.downsampling}; correct it"
        )
    _load_state(model, weights, Path(folder, WEIGHTS))
    tokenizer: Tokenizer = architecture.tokenizer_class()(
        model.eval(), block_layout, identity.normalization, identity.weights
    )
    return tokenizer.to(device, precision)


def _serialize(model: TokenizerModel) -> bytes:
    """What inference needs of the model, as a safetensors file with float32 for every floating dtype."""
    import torch

    # Not on the meta device: its first use loads torch's compiler, which takes longer than torch itself.
    with torch.random.fork_rng(devices=[]):  # in the middle of training it must draw no random numbers
        names = type(model)(**model.arguments).state_dict().keys()
    state = {name: value.detach().cpu() for name, value in model.state_dict().items() if name in names}
    for name, value in state.items():
        if not value.isfinite().all():
            raise TokenizerError(f"{name} is not finite: training diverged; lower the learning rate")
    return _file_of(state)


def _file_of(state: Mapping[str, "Tensor"]) -> bytes:
    """A safetensors file."""
    from safetensors.torch import save

    return save({name: _portable(value) for name, value in state.items()})


def _portable(value: "Tensor") -> "Tensor":
    return (value.float() if value.is_floating_point() else value).contiguous()


def _load_state(model: TokenizerModel, weights: bytes, path: Path) -> None:
    """Fill a new model from a safetensors file that has exactly what it holds."""
    from safetensors.torch import load

    wanted, found = _tensors(_file_of(model.state_dict())), _tensors(weights)
    if found != wanted:
        name = min(name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name))
        raise TokenizerError(
            f"{path}: tensor {name} is {found.get(name, 'missing')}, but the arguments in {CONFIG} "
            f"ask for {wanted.get(name, 'none')}; copy both files from one folder"
        )
    model.load_state_dict(load(weights))


def _tensors(weights: bytes) -> dict[str, str]:
    """Dtype and shape of each tensor in a safetensors file, as text."""
    return {entry.name: f"{entry.dtype} {list(entry.shape)}" for entry in tensor_entries(weights)}
