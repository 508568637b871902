"""Everything that differs between networks of this family, as numbers. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import Count
from pipeline.records import Record

GROUPS = 32
"""Channels are normalised in so many groups, so each width is a multiple of it."""

MOST_LEVELS = 8
"""128 pixels for each token along a side. Each level more doubles the images that a folder is tried on."""

Width = Annotated[int, Field(ge=GROUPS, multiple_of=GROUPS)]
Shape = tuple[int, ...]


class Coder(Record):
    """Encoder or decoder. A level is a resolution, level 0 the finest; each has half the pixels of the last, a side."""

    model_config = ConfigDict(strict=True)

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=MOST_LEVELS, strict=False)]
    """Channels of each level."""
    depth: Count
    """Residual blocks of each level."""
    attention: Annotated[tuple[bool, ...], Field(strict=False)]
    """Whether there is attention behind every block of a level."""
    middle_attention: bool
    """Whether there is attention between the two blocks in the middle, where encoder ends and decoder begins."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.attention) != len(self.widths):
            raise ValueError(f"{len(self.widths)} levels, and attention said of {len(self.attention)}")
        return self


class Architecture(Record):
    """Encoder, quantizer and decoder."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.encoder.widths) != len(self.decoder.widths):
            raise ValueError(f"{len(self.encoder.widths)} levels of encoder and {len(self.decoder.widths)} of decoder")
        return self

    encoder: Coder
    decoder: Coder
    stem: Width
    """Channels behind the first convolution of the encoder."""
    latent: Count
    """Channels between the encoder and the convolution before the quantizer, and alike behind it."""
    quant_kernel: Literal[1, 3]
    """Side of the convolutions before and behind the quantizer."""
    vocab_size: Annotated[int, Field(ge=2)]
    embedding_dim: Count

    @property
    def downsampling(self) -> int:
        """Pixels per token along each side."""
        return 1 << (len(self.encoder.widths) - 1)


class MissingTensor(TokenizerError):
    """A tensor is not there that nothing can be said without."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no {name}")
        self.name = name


def architecture_of(shapes: Mapping[str, Shape]) -> Architecture:
    """The architecture of a network from the names and shapes of its tensors, as `Vqgan` names them.

    What is not as one tensor makes expect is for a comparison with all of them to say.

    Raises MissingTensor, and TokenizerError for widths that cannot be.
    """
    try:
        vocab_size, embedding_dim = shapes["quantize.embedding.weight"]
        return Architecture(
            encoder=_coder(shapes, "encoder"),
            decoder=_coder(shapes, "decoder"),
            stem=shapes["encoder.conv_in.weight"][0],
            latent=shapes["encoder.conv_out.weight"][0],
            quant_kernel=shapes["encoder.quant_conv.weight"][-1],  # type: ignore[arg-type]
            vocab_size=vocab_size,
            embedding_dim=embedding_dim,
        )
    except KeyError as error:
        raise MissingTensor(error.args[0]) from None
    except (ValueError, IndexError) as error:  # pydantic's too
        raise TokenizerError(f"its shapes are those of no such network: {' '.join(str(error).split())}") from None


def _coder(shapes: Mapping[str, Shape], side: str) -> Coder:
    block = re.compile(rf"{side}\.levels\.(\d+)\.residuals\.(\d+)\.")
    places = [tuple(map(int, found.groups())) for name in shapes if (found := block.match(name))]
    if not places:
        raise KeyError(f"{side}.levels.0.residuals.0.conv1.weight")
    levels = range(1 + max(level for level, _ in places))
    return Coder(
        widths=tuple(shapes[f"{side}.levels.{level}.residuals.0.conv1.weight"][0] for level in levels),
        depth=1 + max(number for _, number in places),
        attention=tuple(
            any(name.startswith(f"{side}.levels.{level}.attentions.") for name in shapes) for level in levels
        ),
        middle_attention=any(name.startswith(f"{side}.middle.attention.") for name in shapes),
    )
