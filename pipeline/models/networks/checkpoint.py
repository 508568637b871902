"""The tensors of a published checkpoint, read without running what a pickle can hold."""

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError

Nesting = tuple[str, ...]
"""Keys that lead to the tensors; none where they are the whole file."""

_CODE = re.compile(r"GLOBAL ([\w.]+)|[Ff]unction ([\w.]+)|class ([\w.]+)")


def read_checkpoint(path: Path, nestings: Sequence[Nesting]) -> dict[str, Any]:
    """What is under the first of `nestings` that holds tensors, in a .pth, .pt, .ckpt or safetensors file.

    Raises ConfigError where there is no file, TokenizerError for one that cannot be opened safely or holds no tensors.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name a checkpoint (.pth, .pt, .ckpt) or a safetensors file")
    tree = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for nesting in nestings:
        found = _within(tree, nesting)
        if found is not None:
            return found
    places = ", ".join("/".join(nesting) or "the file itself" for nesting in nestings)
    raise TokenizerError(f"{path}: holds no tensors where such checkpoints have them ({places})")


def floats(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Floating-point tensors in float32, others as they are.

    Raises TokenizerError for a value that is not finite.
    """
    made = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in made.items():
        if not value.isfinite().all():
            raise TokenizerError(f"{path}: {name} has values that are not finite; get the file anew")
    return made


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TokenizerError(f"{path}: not a whole safetensors file ({error}); get it anew") from None


def _pickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of other versions of pickle, which either work or do not
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TokenizerError(_refusal(path, str(error))) from None
    except Exception as error:  # whatever a damaged file makes of its reader
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise TokenizerError(f"{path}: cannot be read as a checkpoint ({line}); get it anew") from None


def _refusal(path: Path, message: str) -> str:
    found = _CODE.search(message)
    if found is None:
        return f"{path}: cannot be read as a checkpoint; get it anew"
    name = next(filter(None, found.groups()))
    return (
        f"{path}: holds more than tensors ({name}), and to open that could run code, so it is not opened; where you "
        "trust it, save its tensors alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'tensors.pt')"
    )


def _within(tree: Any, nesting: Nesting) -> dict[str, Any] | None:
    for key in nesting:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    if isinstance(tree, Mapping) and any(isinstance(value, Tensor) for value in tree.values()):
        return {str(name): value for name, value in tree.items()}
    return None
