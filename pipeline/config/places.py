"""Where configurations that come with vqtok lie, and where a run has its folders."""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def examples() -> str:
    """The folder of the configurations that come with vqtok: in an installed package, or beside it in a clone."""
    package = Path(__file__).parent.parent
    places = (package / "configs", package.with_name("configs"))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return "configs"  # as the sources of vqtok call it
    try:
        return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
    except OSError:  # the working folder is gone
        return str(folder)


_PLACES = (("tokenizer", "path", "tokenizer"), ("tokenize", "store", "store"))
"""Section and key of each folder that a run has for itself, and its name in there."""


def name_places(tree: dict[str, Any], run: str, model: type[BaseModel]) -> None:
    """Fill in the folders of a run where the file leaves them open."""
    for section, key, folder in _PLACES:
        if section not in model.model_fields:
            continue
        keys = tree.setdefault(section, {})
        if isinstance(keys, dict) and keys.get(key) is None:
            keys[key] = f"runs/{run}/{folder}"
