"""Where models of diffusers and transformers are published: a folder as they save one, or a repository of the Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, TokenizerError
from pipeline.files.regular import read_regular
from pipeline.records import JSON

if TYPE_CHECKING:
    from torch import Tensor

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ("*.json", "*.safetensors", "*/*.json", "*/*.safetensors")


def published_folder(source: str) -> Path:
    """The folder of that name, or else what the Hub has under it.

    Raises ConfigError where there is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not _REPOSITORY.fullmatch(source):
        what = f"a file; name its folder, {folder.parent}," if folder.exists() else "no such folder; name one"
        raise ConfigError(f"{source}: {what} as save_pretrained writes it, or a repository of the Hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(_WANTED)))
    except Exception as error:  # of several libraries for the network, and none of them is ours
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{source}: no such folder here, and the Hugging Face Hub does not give a repository of that name ({line})"
            "; download it where there is a network, and name the folder"
        ) from error


def read_json(path: Path) -> JSON:
    """A file of settings. Raises TokenizerError where it is not there or is none."""
    try:
        tree = json.loads(read_regular(path))
    except FileNotFoundError:
        raise TokenizerError(f"{path}: missing; name a folder as save_pretrained writes it") from None
    except (ValueError, OSError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(tree, dict):
        raise TokenizerError(f"{path}: holds no settings")
    return tree


def read_tensors(folder: Path, part: str = "") -> dict[str, Tensor]:
    """The tensors of a folder, of one file or of several with an index.

    Args:
        part: what a larger model calls the part that is wanted; of it alone, where it is there.

    Raises TokenizerError where there are none, or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Any] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                tensors |= {name: file.get_tensor(name) for name in names if not part or f"{part}." in name}
                if part and not tensors and len(_files(folder)) == 1:
                    return {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise TokenizerError(f"{path}: not a whole safetensors file ({error}); get it anew") from None
    return {name.rpartition(f"{part}.")[2] if part else name: value for name, value in tensors.items()}


def _files(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        return [_inside(folder, name, indices[0]) for name in _named(read_json(indices[0]))]
    whole = [folder / name for name in ("diffusion_pytorch_model.safetensors", "model.safetensors")]
    found = [path for path in whole if path.is_file()]
    if not found:
        raise TokenizerError(
            f"{folder}: no model.safetensors and no diffusion_pytorch_model.safetensors; weights in other files are "
            "not opened: load them with their library and save_pretrained them anew"
        )
    return found[:1]


def _named(index: JSON) -> list[str]:
    """The files that an index names, sorted."""
    places = index.get("weight_map")
    return sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []


def _inside(folder: Path, name: str, index: Path) -> Path:
    """A file of the folder. Raises TokenizerError for a name that leads elsewhere, and for what is no file."""
    if "/" in name or not name.endswith(".safetensors"):
        raise TokenizerError(f"{index}: {name!r} is no name of a safetensors file beside it")
    if not (folder / name).is_file():
        raise TokenizerError(f"{folder / name}: missing, and {index.name} names it; get the folder anew")
    return folder / name
