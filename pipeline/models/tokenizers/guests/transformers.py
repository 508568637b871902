"""Tokenizers of models of transformers: Chameleon's and Emu3's, alone or as part of the whole model.

Janus' becomes a folder of kind llamagen, which it is: the library's own `encode` compares vectors with codes that are
not normalised, and its `decode` normalises them. The authors normalise for both.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import WEIGHTS, FolderConfig
from pipeline.models.folder.weights import files_digest
from pipeline.models.networks.vqgan.dialects import JANUS
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
from pipeline.models.tokenizers.vqgan.grids import GridIdentity
from pipeline.records import JSON, Normalization

_NAME = "transformers"
_MODELS = ("Chameleon", "Emu3", "Janus")
_PART = "vqmodel"


def _read(source: str, options: Options) -> Imported:
    folder = published_folder(source)
    settings = read_json(folder / "config.json")
    family = _family(settings, folder)
    tensors = read_tensors(folder, _PART)
    pixels = normalization_between(*options[PIXELS]) if PIXELS in options else _preprocessed(folder)
    if family == "Janus":
        return _as_llamagen(tensors, pixels, folder)
    config = _whole_config(family, settings.get("vq_config", settings))
    side = config.get("resolution")
    return imported(_NAME, f"{family}VQVAE", config, tensors, pixels, folder, (side, side) if side else None)


def _family(settings: JSON, folder: Path) -> str:
    said = [*(settings.get("architectures") or ()), str(settings.get("model_type", ""))]
    for family in _MODELS:
        if any(name.lower().startswith(family.lower()) for name in said):
            return family
    known = ", ".join(f"{family}VQVAE" for family in _MODELS)
    raise TokenizerError(f"{folder / 'config.json'}: a model of {' and '.join(filter(None, said))!r}; known: {known}")


def _whole_config(family: str, given: JSON) -> dict[str, Any]:
    """The configuration with every key of this model, so that other defaults in a later version change nothing."""
    transformers = library(_NAME)
    whole: dict[str, Any] = getattr(transformers, f"{family}VQVAEConfig").from_dict(given).to_dict()
    of_any = transformers.PretrainedConfig().to_dict()
    return {name: value for name, value in whole.items() if name not in of_any}


def _preprocessed(folder: Path) -> Normalization:
    """What the images go through, as the file beside the weights says it; -1 .. 1 where there is none.

    The defaults of the library are those of other models.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return normalization_between(-1, 1)
    settings = read_json(path)
    try:
        scale = 255 * float(settings["rescale_factor"] if settings.get("do_rescale", True) else 1)
        if not settings.get("do_normalize", True):
            return normalization_between(0, scale)
        red, green, blue = (float(value) / scale for value in settings["image_mean"])
        reds, greens, blues = (float(value) / scale for value in settings["image_std"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise TokenizerError(
            f"{path}: does not say rescale_factor, image_mean and image_std ({error!r}); say --pixels=-1,1 or 0,1"
        ) from None
    return Normalization(mean=(red, green, blue), std=(reds, greens, blues))


def _as_llamagen(tensors: dict[str, Any], pixels: Normalization, folder: Path) -> Imported:
    from pipeline.models.networks.state import state_bytes
    from pipeline.models.networks.vqgan.published import read_network

    found = read_network(tensors, (JANUS,), folder)
    files = {WEIGHTS: state_bytes(found.state)}
    identity = GridIdentity(
        architecture=found.architecture, cosine=True, normalization=pixels, weights=files_digest(files)
    )
    return Imported(FolderConfig(kind="llamagen", identity=identity.tree()), files)


KIND = Kind(
    LibraryIdentity.model_validate,
    layouts,
    partial(load_from, _NAME),
    own_layout="raster",
    importer=Importer(
        "The image tokenizer of Chameleon, Emu3 or Janus, alone or in the whole model.",
        "FOLDER",
        _read,
        (pixels_option("as preprocessor_config.json beside the weights says, else -1,1"),),
    ),
)
