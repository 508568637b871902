"""When all processes of a training stop: at the same step, whichever of them was asked to, and with one message."""

import time
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed

from pipeline.errors import VqtokError
from pipeline.process.signals import StopRequest

# A launcher ends all processes as soon as one has ended: the one that says why goes first.
_WORD_SECONDS = 2.0


def raise_once(error: VqtokError, is_main: bool) -> NoReturn:
    """Raise what all processes have come to on the main one; on the others SystemExit, with the same status."""
    if is_main:
        raise error
    time.sleep(_WORD_SECONDS)
    raise SystemExit(error.exit_status)


class StopAgreement:
    """Asks after each step whether any process has been asked to stop.

    The processes tell each other beside the next step, over sockets: no accelerator waits, and the answer of all is
    known one step later.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        grouped = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        self._group: Any = distributed.new_group(backend="gloo") if grouped else None
        self._asked: tuple[Any, Tensor] | None = None

    def signum(self) -> int | None:
        """The signal that ends the training after this step. All processes call this together, and get the same."""
        if self._group is None:
            return self._request.signum
        answer = self.settle()
        signum_1 = torch.tensor([self._request.signum or 0])
        work = distributed.all_reduce(signum_1, distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._asked = work, signum_1
        return answer

    def settle(self) -> int | None:
        """Wait for the answer to the last question, if one is open."""
        asked, self._asked = self._asked, None
        if asked is None:
            return None
        work, signum_1 = asked
        work.wait()
        return int(signum_1) or None
