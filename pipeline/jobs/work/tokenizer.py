"""The tokenizer of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.world import World

if TYPE_CHECKING:
    from pipeline.models.tokenizers.protocol import Tokenizer


def tokenizer_of(config: Config, world: World) -> Tokenizer:
    """That of the configuration, with its layout and precision, on the device of this process.

    Raises as `load_tokenizer` does.
    """
    return load_tokenizer(
        config.tokenizer.path,
        config.tokenize.layout,
        str(world.device),
        config.tokenize.precision,
        config.tokenizer.storage,
    )
