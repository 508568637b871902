"""What a network holds, to the bytes of a safetensors file and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import CONFIG
from pipeline.models.folder.weights import tensor_entries
from pipeline.printing import printable


class Stateful(Protocol):
    """A torch module."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All that it holds."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Take over such a state."""


class Rebuildable(Stateful, Protocol):
    """A torch module that can be built again for inference."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The keyword arguments of its class. What such a one holds is saved."""


def inference_state(network: Rebuildable) -> bytes:
    """What inference needs of a network, as a safetensors file with float32 for every floating dtype.

    Raises TokenizerError when a value is not finite, which is how diverged training ends.
    """
    # Not on the meta device: its first use loads torch's compiler, which takes longer than torch itself.
    with torch.random.fork_rng(devices=[]):  # in the middle of training it must draw no random numbers
        names = type(network)(**network.arguments).state_dict().keys()
    state = {name: value.detach().cpu() for name, value in network.state_dict().items() if name in names}
    for name, value in state.items():
        if not value.isfinite().all():
            raise TokenizerError(f"{name} is not finite: training diverged; lower the learning rate")
    return state_bytes(state)


def state_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file with float32 for every floating dtype."""
    return save({name: _portable(value) for name, value in state.items()})


def load_state(network: Stateful, weights: bytes, path: Path) -> None:
    """Fill a new network from a safetensors file that has exactly what it holds.

    Args:
        path: of the file, for errors.

    Raises TokenizerError naming a tensor that is missing, left over, or of another dtype or shape.
    """
    wanted = {name: f"{_dtype(value)} {list(value.shape)}" for name, value in network.state_dict().items()}
    found = {entry.name: f"{entry.dtype} {list(entry.shape)}" for entry in tensor_entries(weights)}
    if found != wanted:
        name = min(name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name))
        raise TokenizerError(
            f"{path}: tensor {printable(name)} is {found.get(name, 'missing')}, but the arguments in {CONFIG} "
            f"ask for {wanted.get(name, 'none')}; copy both files from one folder"
        )
    network.load_state_dict(load(weights))


def _portable(value: Tensor) -> Tensor:
    return (value.float() if value.is_floating_point() else value).contiguous()


def _dtype(value: Tensor) -> str:
    """What the dtype of a tensor is called in the file that `state_bytes` makes of it."""
    return "F32" if value.is_floating_point() else {torch.int64: "I64", torch.bool: "BOOL"}[value.dtype]
