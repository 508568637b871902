"""Whether the random states in a checkpoint can be taken over.

Accelerate passes over those that cannot, without a word, and training would go on with other random numbers: after
damage, and where a file holds code, which is never run.
"""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.constants import RNG_STATE_NAME
from accelerate.utils.other import load


def damaged_random_states(folder: Path) -> str | None:
    """Why the random states of a process cannot be taken over; None where those of all that are there can."""
    for path in sorted(folder.glob(f"{RNG_STATE_NAME}_*.pkl")):
        try:
            with of_any_numpy():
                _try_out(load(path, weights_only=True))
        except Exception as error:  # unpickling damaged files raises almost anything
            line = next(iter(str(error).splitlines()), "")
            return f"{path.name} holds no random states: {type(error).__name__}: {line}"
    return None


@contextlib.contextmanager
def of_any_numpy() -> Iterator[None]:
    """Have checkpoints loaded that another numpy has written, too: numpy 2 calls by another name what makes arrays."""
    make_array: Any = np.empty(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
    with torch.serialization.safe_globals([(make_array, name) for name in names]):
        yield


def _try_out(states: Any) -> None:
    """Take them over where nobody draws numbers. Raises almost anything."""
    random.Random().setstate(states["random_state"])
    np.random.RandomState().set_state(states["numpy_random_seed"])
    torch.Generator().set_state(states["torch_manual_seed"])
