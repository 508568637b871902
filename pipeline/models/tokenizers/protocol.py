"""What tokenization, stores and reports know of a tokenizer, whatever kind it is.

Shape letters: B images of H x W pixels, h and w grid sides, L_i tokens of block i, K codes, C their length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.rules.rule import Rule
from pipeline.records import JSON, Geometry, Normalization

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

NO_TOKEN = -1
"""In place of every token of an image that has none, where an encoder cannot say so at once."""


def not_finite(precision: str) -> TokenizerError:
    """What is said of an encoder that overflows."""
    return TokenizerError(
        f"the encoder gave values that are not finite in {precision}; "
        "use precision bf16 or fp32, and if it persists train the tokenizer again"
    )


@dataclass(frozen=True, eq=False)
class Codebook:
    """What the indices of a tokenizer stand for."""

    kind: Literal["table", "fsq", "implicit"]
    """`table`: a row each; `fsq`: a point of the lattice of `levels`; `implicit`: nothing that can be stored."""
    vocab_size: int
    """K, the number of codes."""
    embedding_dim: int
    """C, the length of a code."""
    table: npt.NDArray[np.float32] | None = None
    """Float32 [K, C], exactly what `idxBl_to_var_input` looks up; None for kinds without a table."""
    levels: tuple[int, ...] | None = None
    """Levels per dimension of `fsq` (https://arxiv.org/abs/2309.15505)."""


class Tokenizer(Protocol):
    """Everything that the jobs need of a tokenizer; any model that can say this is an equal guest."""

    @property
    def normalization(self) -> Normalization:
        """What the pixels given to `encode` must have gone through; see `normalize_pixels`."""

    @property
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def codebook(self) -> Codebook:
        """What the indices stand for."""

    @property
    def rule(self) -> Rule:
        """How block index lists become embedding sequences."""

    @property
    def rule_arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays of at least one dimension that the rule names; stores keep them, so that readers need no model."""

    def to(self, device: torch.device | str, precision: Precision = "fp32") -> Self:
        """Move to a device and choose the precision of the encoder. The code search is always float32."""

    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        """Normalised float32 images to idx_Bl: int64 [B, L_i] per block, on the tokenizer's device.

        Raises TokenizerError for images without tokens; on an accelerator theirs may be NO_TOKEN instead, so that
        nothing waits for it.
        """

    def decode(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """idx_Bl to normalised float32 images [B, 3, H, W]. Without a grid it is taken to be square.

        Raises TokenizerError saying why where that cannot be done.
        """

    def geometry(self, image_size: tuple[int, int]) -> Geometry:
        """How the tokens of an image (height, width) are laid out.

        Raises TokenizerError for a size that the tokenizer cannot take.
        """

    def identity(self) -> JSON:
        """All that decides token values, as JSON; weights as a digest."""


@runtime_checkable
class FastSearch(Protocol):
    """What a tokenizer may have beside: a search that is faster than torch's on its device."""

    def use_fast_search(self, images: int, image_size: tuple[int, int]) -> str | None:
        """Search so from now on, if it finds the same codes for a batch of images (height, width); its name.

        None where the device has no such search. Raises TokenizerError saying why it is not used where it should be.
        """


@runtime_checkable
class PixelTokenizer(Tokenizer, Protocol):
    """One that normalises pixels itself, so that this and its encoder can be compiled as one graph."""

    def encode_pixels(self, img_B3HW: Tensor) -> list[Tensor]:
        """uint8 images [B, 3, H, W] to what `encode` gives for them. Raises TokenizerError as `encode` does."""

    def compile(self) -> None:
        """Have torch compile what leads from pixels to vectors, from the next batch on.

        What cannot be compiled raises ConfigError with that batch.
        """

    def execution(self) -> JSON:
        """What may change a few tokens, beside precision and device; empty where there is nothing of the kind."""
