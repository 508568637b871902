"""Random states that Accelerate would pass over are found, and what they hold is not run."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from pipeline.jobs.training.random_states import damaged_random_states, of_any_numpy

NAME = "random_states_0.pkl"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Random states as Accelerate writes them."""
    folder = tmp_path_factory.mktemp("checkpoint")
    Accelerator(cpu=True).save_state(str(folder))
    return (folder / NAME).read_bytes()


class Mischief:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_sound_states_are_sound_and_change_nothing(saved: bytes, tmp_path: Path) -> None:
    for process in (0, 1):
        (tmp_path / f"random_states_{process}.pkl").write_bytes(saved)
    before = torch.get_rng_state()
    assert damaged_random_states(tmp_path) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert damaged_random_states(tmp_path / "none") is None


def test_those_of_another_numpy_are_taken_over(saved: bytes, tmp_path: Path) -> None:
    """What makes arrays is `numpy.core.multiarray._reconstruct` for numpy 1, `numpy._core` has it for numpy 2."""
    names, drawn = [b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.multiarray\n_reconstruct\n"], []
    for name in names:
        with ZipFile(io.BytesIO(saved)) as ours, ZipFile(tmp_path / NAME, "w") as theirs:
            for member in ours.namelist():
                theirs.writestr(member, ours.read(member).replace(names[0], name).replace(names[1], name))
        assert name in (tmp_path / NAME).read_bytes()
        assert damaged_random_states(tmp_path) is None
        np.random.seed(4321)
        with of_any_numpy():
            Accelerator(cpu=True).load_state(str(tmp_path))
        drawn.append(np.random.random())
    assert drawn[0] == drawn[1] != np.random.RandomState(4321).random()


FORGED: dict[str, Callable[[bytes, Path], bytes]] = {
    "cut": lambda data, ran: data[: len(data) // 2],
    "code": lambda data, ran: pickle.dumps(Mischief(ran)),
    "something else": lambda data, ran: pickle.dumps([1, 2]),
    "empty": lambda data, ran: b"",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_cannot_be_taken_over_is_named(
    forge: Callable[[bytes, Path], bytes], saved: bytes, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(forge(saved, tmp_path / "ran"))
    reason = damaged_random_states(tmp_path)
    assert reason is not None
    assert reason.startswith(f"{NAME} holds no random states: ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["random_state", "numpy_random_seed", "torch_manual_seed"])
def test_states_that_are_missing_or_none_are_named(name: str, saved: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole.pkl").write_bytes(saved)
    states: dict[str, Any] = torch.load(tmp_path / "whole.pkl", weights_only=False)  # our own
    for other in ({key: value for key, value in states.items() if key != name}, {**states, name: 7}):
        torch.save(other, tmp_path / NAME)
        assert damaged_random_states(tmp_path) is not None
