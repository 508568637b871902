"""What a loader tells its copies in the workers of a torch DataLoader, and they tell it."""

import warnings

import torch

_NONE = -1

_EPOCH, _MOVES, _LOADS, _BEGUN, _GIVEN = range(5)


class Shared:
    """A few numbers in shared memory, which workers see change: forked or spawned, and those that stay, too."""

    def __init__(self) -> None:
        self._numbers = torch.tensor([0, 0, 0, _NONE, _NONE]).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that the loader stands in."""
        return int(self._numbers[_EPOCH])

    @property
    def moves(self) -> int:
        """How often it went somewhere else: to an epoch, or where a state says."""
        return int(self._numbers[_MOVES])

    @property
    def loads(self) -> int:
        """How often it was given a state."""
        return int(self._numbers[_LOADS])

    @property
    def in_workers(self) -> bool:
        """Whether workers have begun to iterate from where it stands."""
        return int(self._numbers[_BEGUN]) == self.moves

    def moved(self, epoch: int) -> int:
        """The loader is elsewhere; gives `moves`."""
        self._numbers[_EPOCH] = epoch
        self._numbers[_MOVES] += 1
        return self.moves

    def loaded(self) -> int:
        """The loader has been given a state; gives `loads`."""
        self._numbers[_LOADS] += 1
        return self.loads

    def iterated_here(self) -> None:
        """The loader itself is iterated, and not a copy."""
        self._numbers[_BEGUN] = self._numbers[_GIVEN] = _NONE

    def begin_in_worker(self, number: int) -> bool:
        """A worker begins. Gives whether this is the first worker, and had begun from the same place before."""
        self._numbers[_BEGUN] = self._numbers[_MOVES]
        again = number == 0 and int(self._numbers[_GIVEN]) == self.moves
        if number == 0:
            self._numbers[_GIVEN] = self._numbers[_MOVES]
        return again


def warn_of_a_second_time(epoch: int) -> None:
    """Of an epoch that workers give again, because nobody said which comes next."""
    warnings.warn(
        f"epoch {epoch} comes a second time: workers of a DataLoader iterate over copies of the loader, which begin "
        "where it stands; call set_epoch before every epoch. For evaluation there is TokenLoader.evaluation()",
        stacklevel=3,
    )
