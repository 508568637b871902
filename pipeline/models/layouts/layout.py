"""What a block layout is, whatever it is made of.

Shape letters: B images, L_i tokens of block i.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Indices = Any
"""The indices of B images as a code search finds them: int [B, h, w], or a list of such where there are several scales.
"""


@dataclass(frozen=True)
class BlockShape:
    """A block as people see it: rows of tokens."""

    title: str
    columns: int
    """Tokens in a row."""


class BlockLayout(Protocol):
    """Which tokens of an image make which block, in which order.

    A value that needs no torch until tokens are split or joined. It may cut one grid into blocks, as those in `cuts`
    do, or have a block for each of several scales; only the tokenizer that brings it knows which.
    """

    @property
    def name(self) -> str:
        """What configurations and stores call it."""

    @property
    def decodable(self) -> bool:
        """Whether the blocks hold all that an image is rebuilt from, so that `join` can undo `split`."""

    def block_lengths(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """L_i, the number of tokens of each block, for an image whose finest token grid is (h, w).

        Raises TokenizerError for a grid that the layout cannot have.
        """

    def split(self, idx: Indices, /) -> list[Tensor]:
        """Indices as the tokenizer finds them to blocks: int64 [B, L_i] each, on the same device."""

    def join(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Indices:
        """Undo `split`. Without a grid (h, w) it is taken to be square.

        Raises TokenizerError saying why where that cannot be done.
        """


def layout_among(layouts: Iterable[BlockLayout], name: str) -> BlockLayout:
    """The layout of that name.

    Raises ConfigError listing the names that there are.
    """
    known = {layout.name: layout for layout in layouts}
    if name not in known:
        raise ConfigError(f"no block layout {name!r}; known: {', '.join(known)}")
    return known[name]
