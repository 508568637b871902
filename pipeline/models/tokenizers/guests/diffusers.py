"""`VQModel` of diffusers, such as the tokenizers of aMUSEd and of the first latent diffusion models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import TokenizerError
from pipeline.models.tokenizers.guests.library import (
    PIXELS,
    LibraryIdentity,
    imported,
    layouts,
    library,
    load_from,
    normalization_between,
    pixels_option,
)
from pipeline.models.tokenizers.guests.sources import published_folder, read_json, read_tensors
from pipeline.models.tokenizers.importer import Imported, Importer, Options
from pipeline.models.tokenizers.kind import Kind

_NAME = "diffusers"
_CLASS = "VQModel"


def _read(source: str, options: Options) -> Imported:
    from pipeline.models.networks.budget import Budget

    folder = published_folder(source)
    if (folder / "model_index.json").is_file():
        folder /= _part_of_pipeline(folder)
    settings = read_json(folder / "config.json")
    if settings.get("_class_name") != _CLASS:
        raise TokenizerError(
            f"{folder / 'config.json'}: _class_name is {settings.get('_class_name')!r}, not {_CLASS!r}"
        )
    tensors = read_tensors(folder)
    with Budget([value.shape for value in tensors.values()], folder / "config.json"):
        # As the library completes them, so that another default in a later version changes nothing.
        whole: dict[str, Any] = library(_NAME).VQModel.from_config(settings).config
    config = {name: value for name, value in whole.items() if not name.startswith("_")}
    pixels = normalization_between(*options.get(PIXELS, (-1.0, 1.0)))
    return imported(_NAME, _CLASS, config, tensors, pixels, folder)


def _part_of_pipeline(folder: Path) -> str:
    """The folder in a whole pipeline that holds the VQModel: `vqvae`, or `movq` in those of Kandinsky."""
    parts = read_json(folder / "model_index.json").items()
    found = sorted(
        name for name, of in parts if isinstance(of, list) and of[1:] == [_CLASS] and (folder / name).is_dir()
    )
    if len(found) != 1:
        which = f"several of class {_CLASS} ({', '.join(found)}); name one" if found else f"none of class {_CLASS}"
        raise TokenizerError(f"{folder / 'model_index.json'}: of the pipeline's models there is {which}")
    return found[0]


KIND = Kind(
    LibraryIdentity.model_validate,
    layouts,
    partial(load_from, _NAME),
    own_layout="raster",
    importer=Importer(
        "A VQModel of diffusers, as a folder or a repository of the Hub.",
        "FOLDER",
        _read,
        (pixels_option("-1,1, for their configuration cannot say it (aMUSEd wants 0,1)"),),
    ),
)
