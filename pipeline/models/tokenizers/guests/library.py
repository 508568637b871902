"""What tokenizers have in common that a library runs. Imports neither torch nor the libraries before it must."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.models.folder.contents import WEIGHTS, FolderConfig, TokenizerFolder
from pipeline.models.folder.weights import files_digest
from pipeline.models.layouts.cuts import CUTS, GridCut
from pipeline.models.tokenizers.importer import Imported, ImportOption
from pipeline.records import JSON, Normalization, Record

if TYPE_CHECKING:
    from pipeline.models.tokenizers.protocol import Tokenizer


class LibraryIdentity(Record):
    """`identity` in config.json, which stores compare and keep."""

    model: str
    """Name of the library's class."""
    config: JSON
    """Its configuration, every key of it."""
    normalization: Normalization
    """What the pixels have gone through."""
    weights: str
    """Digest of what model.safetensors holds."""


def layouts(identity: LibraryIdentity) -> tuple[GridCut, ...]:
    """Their tokens are one grid."""
    return tuple(CUTS.values())


def library(name: str) -> Any:
    """A library that vqtok can do without. Raises ConfigError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} runs this tokenizer and cannot be imported ({error}): pip install 'vqtok[guests]'"
        ) from error


def load_from(name: str, folder: TokenizerFolder[LibraryIdentity], layout: GridCut) -> Tokenizer:
    """The tokenizer in a folder of kind `name`.

    Raises TokenizerError naming the file, ConfigError where the library is not there.
    """
    from pipeline.models.networks.budget import within
    from pipeline.models.networks.state import load_state
    from pipeline.models.tokenizers.guests.networks import network_of, try_out
    from pipeline.models.tokenizers.network import NetworkTokenizer

    identity = folder.identity
    with within(folder.files[WEIGHTS], folder.path):
        network = network_of(identity.model, library(name), identity.config)
    load_state(network.model, folder.files[WEIGHTS], folder.path / WEIGHTS)
    try_out(network.eval(), folder.path)
    return NetworkTokenizer(network, layout, identity.normalization, folder.identity_json(), decodes=network.decodes)


def imported(
    name: str,
    model: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Any],
    normalization: Normalization,
    source: Path,
    image_size: tuple[int, int] | None = None,
) -> Imported:
    """A folder of kind `name`.

    Args:
        config: of the model, as the library has it.
        tensors: of the model, by their names there.
        source: where they are from, for errors.

    Raises TokenizerError listing every name that is missing, left over, or of another shape.
    """
    from pipeline.models.networks.accounting import account_for, shape_of
    from pipeline.models.networks.budget import Budget
    from pipeline.models.networks.checkpoint import floats
    from pipeline.models.networks.state import state_bytes
    from pipeline.models.tokenizers.guests.networks import network_of

    whole = json.loads(json.dumps(config))  # tuples as lists, as they will be read
    with Budget([value.shape for value in tensors.values()], source):
        wanted = network_of(model, library(name), whole).model.state_dict()
    account_for(
        {key: shape_of(value) for key, value in tensors.items()},
        {key: tuple(value.shape) for key, value in wanted.items()},
        source,
    )
    files = {WEIGHTS: state_bytes(floats(tensors, source))}
    identity = LibraryIdentity(model=model, config=whole, normalization=normalization, weights=files_digest(files))
    return Imported(FolderConfig(kind=name, identity=identity.tree(), image_size=image_size), files)


def _range_of(text: str) -> tuple[float, float]:
    """`0,1` as numbers. Raises ValueError."""
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high < float("inf"):
        raise ValueError(f"{text!r}: write the values of black and white with a comma between them: -1,1 or 0,1")
    return low, high


PIXELS = "pixels"


def pixels_option(otherwise: str) -> ImportOption:
    """What range of values the pixels have."""
    return ImportOption(
        PIXELS,
        f"Values of black and white pixels, such as --pixels=0,1; by default {otherwise}.",
        "LOW,HIGH",
        _range_of,
    )


def normalization_between(low: float, high: float) -> Normalization:
    """Pixels of `low` to `high`."""
    mean, std = -low / (high - low), 1 / (high - low)
    return Normalization(mean=(mean, mean, mean), std=(std, std, std))
