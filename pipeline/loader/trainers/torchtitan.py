"""Next-token pairs for torchtitan, from a position that any number of ranks goes on from."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from pipeline.loader.arguments import open_store
from pipeline.loader.loader import TokenLoader
from pipeline.store.batch import TokenBatch
from pipeline.store.reader import TokenStore

Pair = tuple[dict[str, Tensor], Tensor]


class TokenSequences(IterableDataset[Pair]):
    """A data loader of torchtitan: ({"input": int64 [B, S - 1]}, labels int64 [B, S - 1]), epoch after epoch.

    Its state is the same on every rank, and goes on with another number of ranks and another batch size, which that of
    torchtitan's own loader does not. Equal batches on every rank: what fills none is left out of an epoch.

        loader = TokenSequences(store, dp_rank, dp_world_size, local_batch_size=8, bos=..., label_offset=...)

    Args:
        store: an open store.
        dp_rank: rank among those that read different data.
        dp_world_size: number of them.
        local_batch_size: sequences of a batch of this rank.
        seed: what the order depends on.
        infinite: whether an epoch follows the last one, or the iteration ends with it.
        loader_options: arguments of TokenLoader, such as `rows` and `label_dropout`.
        sequence_options: those of `TokenStore.sequence_format`.

    Raises ValueError as TokenLoader and `sequence_format` do, and for an epoch without a batch.
    """

    def __init__(
        self,
        store: TokenStore,
        dp_rank: int,
        dp_world_size: int,
        local_batch_size: int,
        seed: int = 0,
        infinite: bool = True,
        loader_options: dict[str, Any] | None = None,
        **sequence_options: Any,
    ) -> None:
        self.format = open_store(store).sequence_format(**sequence_options)
        """Length and vocabulary of a whole sequence, and the way back."""
        self._options = sequence_options
        self._infinite = infinite
        options = {"seed": seed, "remainder": "drop", **(loader_options or {})}
        self.loader = TokenLoader(store, local_batch_size, rank=dp_rank, world_size=dp_world_size, **options)
        if infinite and not len(self.loader):
            raise ValueError(f"{self.loader} has no batch in an epoch, and would never give one")

    def __iter__(self) -> Iterator[Pair]:
        while True:
            yield from map(self._pair, self.loader)
            if not self._infinite:
                return

    def _pair(self, batch: TokenBatch) -> Pair:
        ids = batch.sequence(**self._options)
        return {"input": ids[:, :-1]}, ids[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        """Where all ranks stand after equally many steps."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there. Raises StoreError as `TokenLoader.load_state_dict` does; an empty state changes nothing."""
        if state:
            self.loader.load_state_dict(state)
