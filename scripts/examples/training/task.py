"""What a script adds to the training loop.

Shape letters: B images, L tokens of an image, L_i those of block i.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.loader import TokenBatch
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.store import TokenStore
from training.drawing import Drawing
from training.transformer import Size


@dataclass(frozen=True)
class Settings:
    """What the figures depend on, beside the task, the store and the kind of hardware."""

    steps: int | None
    epochs: int
    batch_size: int
    dim: int
    depth: int
    heads: int
    lr: float
    warmup: int
    every: int
    classes: bool
    seed: int

    @property
    def size(self) -> Size:
        """Of the transformer."""
        return Size(self.dim, self.depth, self.heads)


class Task(ABC):
    """What a model is taught, and how new tokens are drawn from it."""

    name: ClassVar[str]
    """That of the script is train_NAME.py, that of its folder STORE-NAME."""
    samples: ClassVar[int] = 16
    """New images that are drawn at the end."""
    by_block: ClassVar[bool] = False
    """Whether bits per token are told for each block of the layout, too."""

    def check(self, store: TokenStore) -> None:
        """Raises ConfigError for a store that this cannot be done with, StoreError for one without a codebook."""
        if not store.rule.picks_rows:
            raise ConfigError(
                f"{store.root}: its embeddings follow the rule {store.rule.name!r}, and this transformer takes a "
                "row of the codebook for each token; name another --store"
            )
        _ = store.codebook

    @abstractmethod
    def model(self, store: TokenStore, num_classes: int, size: Size) -> nn.Module:
        """An untrained one."""

    @abstractmethod
    def nats(
        self, model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor, seed: Sequence[int]
    ) -> Tensor:
        """float32 [B, L] nats: the loss of each token. Their mean is minimised.

        Args:
            class_B: int64, from 0 to `num_classes`, which means none.
            seed: of whatever is random, so that no checkpoint needs the state of a generator.
        """

    def held_out_nats(self, model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor) -> Tensor:
        """float32 [B, L] nats, as an image costs them that the model has not seen."""
        return self.nats(model, store, batch, class_B, seed=())

    @abstractmethod
    def sample(self, model: nn.Module, store: TokenStore, class_B: Tensor, drawing: Drawing) -> list[Tensor]:
        """New block index lists, int64 [B, L_i], one for each class."""

    def images(self, tokenizer: Tokenizer, idx_Bl: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """Normalised images [N, 3, H, W] for the picture."""
        return tokenizer.decode(idx_Bl, grid)
