"""What a kind of tokenizer is: how its folders are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from pipeline.models.folder.contents import IdentityT, TokenizerFolder
from pipeline.models.layouts.layout import BlockLayout
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
