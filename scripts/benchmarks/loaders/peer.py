"""What a loader must be able to do to be compared, and what the adapters share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from loaders.rows import Array

BATCH = 256

Request = int | list[int]
"""One row, or the rows of a batch."""
Fetch = Callable[[Request], Any]


class Pattern(StrEnum):
    """In which order rows are asked for."""

    SEQUENTIAL = "sequential epoch"
    SHUFFLED = "shuffled epoch"
    ROWS = "random rows"
    BATCHES = "random batches"

    @property
    def is_epoch(self) -> bool:
        """Whether the loader itself chooses the order."""
        return self in (Pattern.SEQUENTIAL, Pattern.SHUFFLED)


class Cannot(Exception):
    """The loader does not offer this; the message stands in the table."""


class Peer(ABC):
    """One loader. Another one is compared with `--also module:Class`."""

    @abstractmethod
    def write(self, rows: Array, folder: Path) -> None:
        """Store uint16 [n, L] in the loader's own form. `rows.filename` is a .npy of exactly these rows."""

    @abstractmethod
    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        """An object of which every iteration is an epoch in batches of BATCH rows, made in `workers` processes.

        The processes stay from one epoch to the next. Raises Cannot.
        """

    def fetch(self, folder: Path) -> Fetch:
        """A function that gives one row, or the rows of a batch in the order of the request. Raises Cannot."""
        raise Cannot("no: reads in its own order only")

    def tokens(self, batch: Any) -> Sequence[Tensor | Array]:
        """What the training loop takes from a batch, within the measured time: columns [n, L_i] of its rows."""
        return [batch]

    def close(self) -> None:  # noqa: B027
        """Delete what lies outside the folder; most have nothing there."""


class _Requested(Dataset[Any]):
    """Requests are answered wherever the DataLoader runs this."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def __getitem__(self, request: Request) -> Any:
        return self._fetch(request)


class _Requests(Sampler[Any]):
    """A list that can be exchanged while the worker processes live."""

    requests: Sequence[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)


def answers(fetch: Fetch, workers: int) -> Callable[[Sequence[Request]], Iterator[Any]]:
    """A function that answers requests in order: in this process, or in those of a DataLoader."""
    if workers == 0:
        return lambda requests: map(fetch, requests)
    sampler = _Requests()
    loader = DataLoader(
        _Requested(fetch), batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=True
    )

    def ask(requests: Sequence[Request]) -> Iterator[Any]:
        sampler.requests = requests
        return iter(loader)

    return ask
