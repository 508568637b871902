"""What a kind of tokenizer is: how its folders are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from pipeline.models.folder.contents import IdentityT, TokenizerFolder
from pipeline.models.layouts.layout import BlockLayout, layout_among
from pipeline.models.tokenizers.importer import Importer
from pipeline.records import JSON

if TYPE_CHECKING:
    from pipeline.models.tokenizers.protocol import Tokenizer


@dataclass(frozen=True)
class Kind(Generic[IdentityT]):
    """One kind of tokenizer. Its module imports no torch before `load` is called: identities are read without."""

    identity: Callable[[JSON], IdentityT]
    """Checks the `identity` of config.json.

    Raises pydantic's ValidationError, or ValueError with a sentence, for one that this kind cannot have."""
    layouts: Callable[[IdentityT], tuple[BlockLayout, ...]]
    """The block layouts that a tokenizer of this identity can give."""
    load: Callable[[TokenizerFolder[IdentityT], Any], Tokenizer]
    """Builds the tokenizer with one of its layouts, on the CPU and in float32.

    Raises TokenizerError naming the file and the remedy."""
    own_layout: str | None = None
    """Name of the layout that it gives unless it is asked for another; by default, and where it is none, the first."""
    importer: Importer | None = None
    """How `vqtok import` makes a folder of this kind; None for kinds that are not imported."""

    def layout(self, identity: IdentityT, name: str | None) -> BlockLayout:
        """The layout of that name; its own for None. Raises ConfigError listing those that it can give."""
        layouts = self.layouts(identity)
        own = next((layout for layout in layouts if layout.name == self.own_layout), layouts[0])
        return own if name is None else layout_among(layouts, name)
