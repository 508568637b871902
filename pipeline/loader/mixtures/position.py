"""Where a mixture stands between two steps, and where it stands after some more. Reads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.loader.mixtures.passes import Progress, Stretch
from pipeline.loader.mixtures.schedule import Schedule


@dataclass(frozen=True)
class Position:
    """Where a mixture stands between two steps; the same on all ranks."""

    epoch: int
    """From 0; always 0 where epochs do not end."""
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
        return Position(0, 0, 0, (Progress(0, (Stretch(self._world_size),)),) * len(self._lengths))

    def after(self, place: Position, steps: int) -> Position:
        """So many steps on, without regard to the ends of epochs."""
        rounds = steps * self._batch_size
        counts = self._schedule.counts(place.position, rounds)
        return Position(
            place.epoch,
            place.position + rounds,
            place.delivered + rounds * self._world_size,
            tuple(
                own.after(count, length) if count else own
                for own, count, length in zip(place.stores, counts, self._lengths, strict=True)
            ),
        )

    @property
    def steps(self) -> int:
        """Steps of a whole epoch, which must end."""
        assert self._rows_per_epoch is not None
        return self._rows_per_epoch // (self._batch_size * self._world_size)

    def steps_left(self, place: Position) -> int | None:
        """Steps from there to the end of the epoch; None where it does not end."""
        if self._rows_per_epoch is None:
            return None
        return max(self._rows_per_epoch - place.delivered, 0) // (self._batch_size * self._world_size)

    def later(self, place: Position, steps: int) -> Position:
        """So many steps on. After the last of an epoch it is its end, beyond that in a later one."""
        left = self.steps_left(place)
        if left is None or steps <= left:
            return self.after(place, steps)
        epochs, rest = divmod(steps - left - 1, self.steps)
        return self.after(self._begin(place, place.epoch + 1 + epochs), rest + 1)

    def beginning_of(self, epoch: int, now: Position, begun: Position) -> Position:
        """Where an epoch begins, for a mixture that stands at `now`, in an epoch that began at `begun`."""
        if epoch == now.epoch:
            return begun
        if epoch < now.epoch:
            return following(self.after(self.beginning, epoch * self.steps), epoch)
        return self._begin(now, epoch)

    def _begin(self, place: Position, epoch: int) -> Position:
        """The beginning of an epoch after that of a place."""
        left = self.steps_left(place) or 0
        return following(self.after(place, left + (epoch - place.epoch - 1) * self.steps), epoch)


def following(end: Position, epoch: int) -> Position:
    """The end of the epoch before as the beginning of an epoch."""
    return replace(end, epoch=epoch, delivered=0)
