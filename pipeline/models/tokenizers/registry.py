"""Tokenizer folders: loaded for tokenization.

Loading imports torch, and nothing before it does: a command that only asks for an identity answers in a fraction of
the time that the import takes.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import TokenizerError
from pipeline.models.folder.architectures import ARCHITECTURES
from pipeline.models.folder.contents import CONFIG, WEIGHTS, read_folder, tokenizer_identity, trained_image_size
from pipeline.models.layouts.cuts import layout_named

if TYPE_CHECKING:
    import torch

    from pipeline.models.tokenizers.protocol import Precision, Tokenizer

__all__ = ["load_tokenizer", "tokenizer_identity", "trained_image_size"]


def load_tokenizer(
    folder: str | os.PathLike[str],
    layout: str,
    device: "torch.device | str" = "cpu",
    precision: "Precision" = "fp32",
) -> "Tokenizer":
    """The tokenizer in a folder, ready to encode on `device`.

    Raises TokenizerError naming the file and the remedy, and ConfigError for an unknown layout.
    """
    from pipeline.models.networks.state import load_state

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
    load_state(model, weights, Path(folder, WEIGHTS))
    tokenizer: Tokenizer = architecture.tokenizer_class()(
        model.eval(), block_layout, identity.normalization, identity.weights
    )
    return tokenizer.to(device, precision)
