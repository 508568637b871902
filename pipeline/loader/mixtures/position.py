"""Where a mixture stands between two steps, and where it stands after some more. Reads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.loader.mixtures.passes import Progress, Stretch
from pipeline.loader.mixtures.schedule import Schedule


@dataclass(frozen=True)
class Position:
    """Where a mixture stands between two steps; the same on all ranks."""

    position: int
    """Rows that each rank has taken since the beginning."""
    delivered: int
    """Rows that all ranks have taken in this epoch."""
    stores: tuple[Progress, ...]


class Course:
    """The way of a mixture through its stores.

    Args:
        lengths: rows of each store.
        batch_size: rows of a batch of one rank.
        rows_per_epoch: of all ranks together; None where epochs do not end.
    """

    def __init__(
        self,
        schedule: Schedule,
        lengths: Sequence[int],
        batch_size: int,
        world_size: int,
        rows_per_epoch: int | None,
    ) -> None:
        self._schedule = schedule
        self._lengths = lengths
        self._batch_size = batch_size
        self._world_size = world_size
        self._rows_per_epoch = rows_per_epoch

    @property
    def beginning(self) -> Position:
        """Before the first step."""
        return Position(0, 0, (Progress(0, (Stretch(self._world_size),)),) * len(self._lengths))

    def after(self, place: Position, steps: int) -> Position:
        """So many steps on, without regard to the ends of epochs."""
        rounds = steps * self._batch_size
        counts = self._schedule.counts(place.position, rounds)
        return Position(
            place.position + rounds,
            place.delivered + rounds * self._world_size,
            tuple(
                own.after(count, length) if count else own
                for own, count, length in zip(place.stores, counts, self._lengths, strict=True)
            ),
        )

    def steps_left(self, place: Position) -> int | None:
        """Steps from there to the end of the epoch; None where it does not end."""
        if self._rows_per_epoch is None:
            return None
        return max(self._rows_per_epoch - place.delivered, 0) // (self._batch_size * self._world_size)
