"""The tensors of a published checkpoint, read without running what a pickle can hold."""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError
from pipeline.printing import printable

Nesting = tuple[str, ...]
"""Keys that lead to the tensors; none where they are the whole file."""

_WRAPPERS = ("module.", "_orig_mod.")
"""What every name begins with that DistributedDataParallel and torch.compile have wrapped."""

# Tensors may share what is stored, and files be compressed a little.
_TIMES = 4
_SPARE_BYTES = 1 << 26

_CODE = re.compile(r"GLOBAL ([\w.]+)|[Ff]unction ([\w.]+)|class ([\w.]+)")


def read_checkpoint(path: Path, nestings: Sequence[Nesting]) -> dict[str, Any]:
    """What is under the first of `nestings` that holds tensors, in a .pth, .pt, .ckpt or safetensors file.

    Names are those inside of DistributedDataParallel and torch.compile.

    Raises ConfigError where there is no file, TokenizerError for one that cannot be opened safely or holds no tensors.
    """
    if not path.is_file():
        what = "a folder, and no file" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}; name a checkpoint (.pth, .pt, .ckpt) or a safetensors file")
    if path.suffix == ".json":
        raise ConfigError(f"{path}: lists the files of a checkpoint in several; save its tensors in one, and name that")
    tree = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path, nestings)
    for nesting in nestings:
        found = _within(tree, nesting)
        if found is not None:
            return _unwrapped(found)
    places = ", ".join("/".join(nesting) or "the file itself" for nesting in nestings)
    raise TokenizerError(f"{path}: holds no tensors where such checkpoints have them ({places})")


def floats(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Floating-point tensors in float32, others as they are.

    Raises TokenizerError for a value that is not finite, and for tensors that are far larger than their file.
    """
    _refuse_larger(state, path)
    made = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in made.items():
        if not value.isfinite().all():
            raise TokenizerError(f"{path}: {printable(name)} has values that are not finite; get the file anew")
    return made


def _refuse_larger(state: Mapping[str, Tensor], path: Path) -> None:
    """A pickle can name a few bytes as a tensor of any shape, all of whose elements are the same."""
    there = sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.safetensors")))
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > _TIMES * there + _SPARE_BYTES:
        raise TokenizerError(
            f"{path}: tensors of {claimed:,} bytes in {there:,} bytes of a file: they repeat what is stored, and are "
            "not taken"
        )


def _refuse_packed(path: Path) -> None:
    """torch stores tensors as they are; a zip file that unpacks to far more than it has is no checkpoint."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _TIMES * path.stat().st_size + _SPARE_BYTES:
        raise TokenizerError(f"{path}: unpacks to {unpacked:,} bytes, and is no checkpoint that torch writes")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TokenizerError(f"{path}: not a whole safetensors file ({error}); get it anew") from None


def _pickled(path: Path, nestings: Sequence[Nesting]) -> Any:
    try:
        _refuse_packed(path)
        with (
            warnings.catch_warnings(action="ignore"),  # of other versions of pickle, which either work or do not
            torch.serialization.safe_globals([argparse.Namespace]),  # attributes alone; LlamaGen's trainer saves one
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    except TokenizerError:
        raise
    except pickle.UnpicklingError as error:
        raise TokenizerError(_refusal(path, str(error), nestings)) from None
    except Exception as error:  # whatever a damaged file makes of its reader
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise TokenizerError(f"{path}: cannot be read as a checkpoint ({line}); get it anew") from None


def _refusal(path: Path, message: str, nestings: Sequence[Nesting]) -> str:
    found = _CODE.search(message)
    if found is None:
        return f"{path}: cannot be read as a checkpoint; get it anew"
    name = next(filter(None, found.groups()))
    keys = ", ".join(repr(nesting[0]) for nesting in nestings if nesting)
    return (
        f"{path}: holds more than tensors ({name}), and to open that could run code, so it is not opened; where you "
        "trust it, save its tensors alone: x = torch.load(FILE, weights_only=False); torch.save(x.state_dict() if "
        f"hasattr(x, 'state_dict') else {{k: x[k] for k in ({keys},) if k in x}}, 'tensors.pt')"
    )


def _unwrapped(tensors: dict[str, Any]) -> dict[str, Any]:
    for wrapper in _WRAPPERS * 2:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def _within(tree: Any, nesting: Nesting) -> dict[str, Any] | None:
    for key in nesting:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    if isinstance(tree, Mapping) and any(isinstance(value, Tensor) for value in tree.values()):
        return {str(name): value for name, value in tree.items()}
    return None
