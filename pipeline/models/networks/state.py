"""What a model holds, to the bytes of a safetensors file and back."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.folder.architectures import TokenizerModel
from pipeline.models.folder.contents import CONFIG
from pipeline.models.folder.weights import tensor_entries


def state_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file."""
    return save({name: _portable(value) for name, value in state.items()})


def _portable(value: Tensor) -> Tensor:
    return (value.float() if value.is_floating_point() else value).contiguous()


def load_state(model: TokenizerModel, weights: bytes, path: Path) -> None:
    """Fill a new model from a safetensors file that has exactly what it holds."""
    wanted, found = _tensors(state_bytes(model.state_dict())), _tensors(weights)
    if found != wanted:
        name = min(name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name))
        raise TokenizerError(
            f"{path}: tensor {name} is {found.get(name, 'missing')}, but the arguments in {CONFIG} "
            f"ask for {wanted.get(name, 'none')}; copy both files from one folder"
        )
    model.load_state_dict(load(weights))


def _tensors(weights: bytes) -> dict[str, str]:
    """Dtype and shape of each tensor in a safetensors file, as text."""
    return {entry.name: f"{entry.dtype} {list(entry.shape)}" for entry in tensor_entries(weights)}
