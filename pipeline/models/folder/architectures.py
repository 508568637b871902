"""The model classes that a tokenizer folder can name. One entry makes another tokenizer an equal guest."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from pipeline.records import Record

if TYPE_CHECKING:
    from torch import Tensor

Count = Annotated[int, Field(ge=1)]


class TokenizerModel(Protocol):
    """What a torch module needs for its tokenizer folder."""

    downsampling: int
    """Pixels per token along each side."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The keyword arguments that build it again for inference. What that one's state has is saved."""

    def state_dict(self) -> "Mapping[str, Tensor]":
        """All that the module holds, perhaps more than inference needs."""

    def load_state_dict(self, state_dict: "Mapping[str, Tensor]") -> object:
        """Take over such a state."""


@dataclass(frozen=True)
class Architecture:
    """Where the two classes of a tokenizer live. They are imported when a model is built, not before."""

    arguments: type[Record]
    """The keyword arguments of `model` that a folder holds."""
    model: str
    """`module:Class` of the torch module, a `TokenizerModel`."""
    tokenizer: str
    """`module:Class` of the Tokenizer, made from (model, layout, normalization, weights_digest)."""

    def model_class(self) -> Any:
        """The torch module class."""
        return _resolve(self.model)

    def tokenizer_class(self) -> Any:
        """The class that has the `Tokenizer` protocol."""
        return _resolve(self.tokenizer)


class SimpleVQVAEArguments(Record):
    """What decides the computation of a trained `SimpleVQVAE`; see `ModelConfig` for the meaning."""

    vocab_size: Count
    embedding_dim: Count
    hidden_dim: Count
    residual_blocks: Annotated[int, Field(ge=0)]
    final_relu: bool
    cosine: bool


ARCHITECTURES: dict[str, Architecture] = {
    "SimpleVQVAE": Architecture(
        arguments=SimpleVQVAEArguments,
        model="pipeline.models.networks.vqvae:SimpleVQVAE",
        tokenizer="pipeline.models.tokenizers.network:VqvaeTokenizer",
    ),
}
"""By the name of the model class, which config.json holds."""


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
