"""Where all ranks stand in an epoch, and how many batches are left: pure functions of numbers."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.loader.epochs import Leg, lanes

Remainder = Literal["uneven", "drop", "pad"]


@dataclass(frozen=True)
class Position:
    """Where a loader stands; the same on all ranks after equally many steps."""

    epoch: int
    stages: tuple[Leg, ...]
    """Stretches of the epoch with one number of ranks each; the last is going on."""

    @classmethod
    def beginning(cls, epoch: int, world_size: int) -> "Position":
        """The beginning of an epoch."""
        return cls(epoch, (Leg(world_size),))

    @classmethod
    def resumed(cls, state: dict[str, Any], world_size: int) -> "Position":
        """Where the loader stood whose state it is, with so many ranks from there on."""
        stages = [Leg(int(ranks), int(taken)) for ranks, taken in state["stages"]]
        if not stages[-1].taken:
            stages.pop()
        if not stages or stages[-1].world_size != world_size:
            stages.append(Leg(world_size))
        return cls(int(state["epoch"]), tuple(stages))

    def taken(self, rows: int) -> "Position":
        """So many rows of every rank later, in the same epoch."""
        *before, now = self.stages
        return Position(self.epoch, (*before, Leg(now.world_size, now.taken + rows)))

    @property
    def tree(self) -> dict[str, Any]:
        """What a state says of it."""
        return {"epoch": self.epoch, "stages": [[stage.world_size, stage.taken] for stage in self.stages]}


@dataclass(frozen=True)
class Steps:
    """How rows are cut into batches."""

    rows: int
    """Of an epoch, of all ranks together."""
    batch_size: int
    remainder: Remainder

    def left(self, position: Position, rank: int) -> int:
        """Batches of a rank to the end of the epoch."""
        own = self._left_rows(position)
        least, most = min(own), max(own)
        size = self.batch_size
        return {"uneven": -(-own[rank] // size), "drop": least // size, "pad": -(-most // size)}[self.remainder]

    def most_left(self, position: Position) -> int:
        """Batches to the end of the epoch, of the rank that has most."""
        own = self._left_rows(position)
        return max(self.left(position, rank) for rank in (own.index(min(own)), own.index(max(own))))

    def after(self, position: Position, steps: int) -> Position:
        """So many batches of all ranks later. After the last of an epoch it is its end, beyond that in a later one."""
        left = self.most_left(position)
        if steps <= left:
            return position.taken(steps * self.batch_size)
        following = Position.beginning(position.epoch + 1, position.stages[-1].world_size)
        whole = self.most_left(following)
        if not whole:
            return following
        epochs, rest = divmod(steps - left - 1, whole)
        later = Position.beginning(following.epoch + epochs, following.stages[-1].world_size)
        return later.taken((rest + 1) * self.batch_size)

    def _left_rows(self, position: Position) -> list[int]:
        taken = position.stages[-1].taken
        return [max(sum(map(len, lane)) - taken, 0) for lane in lanes(self.rows, position.stages)]
