"""The door through which all tokenizers come: `kind` in a folder's config.json names the module that reads it.

Loading imports torch, and nothing before it does: a command that only asks for an identity answers in a fraction of
the time that the import takes.
"""

from __future__ import annotations

import copy
import os
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import (
    CONFIG,
    OURS,
    REMEDY,
    FolderConfig,
    TokenizerFolder,
    compare_files,
    explain,
    read_config,
    read_files,
)
from pipeline.models.folder.copies import local_folder
from pipeline.models.folder.versions import Versions, versions_of
from pipeline.models.tokenizers.importer import Importer
from pipeline.models.tokenizers.kind import Kind
from pipeline.printing import say
from pipeline.records import JSON
from pipeline.storage import Storage

if TYPE_CHECKING:
    import torch

    from pipeline.models.tokenizers.protocol import Precision, Tokenizer

_KIND = "kind"

KINDS: dict[str, str] = {
    OURS: "pipeline.models.tokenizers.vqtok",
    "var": "pipeline.models.tokenizers.vqgan.var",
    "llamagen": "pipeline.models.tokenizers.vqgan.llamagen",
    "taming": "pipeline.models.tokenizers.vqgan.taming",
    "diffusers": "pipeline.models.tokenizers.guests.diffusers",
    "transformers": "pipeline.models.tokenizers.guests.transformers",
}
"""The module of each kind, which has a `KIND`. Installed packages add theirs as entry points of `vqtok.tokenizers`."""

_compared: dict[Path, tuple[tuple[str, ...], Versions, JSON]] = {}
"""Folders whose files this process has compared with their digest: names and versions of these, and the identity."""


def load_tokenizer(
    folder: str | os.PathLike[str],
    layout: str | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    storage: Storage | None = None,
) -> Tokenizer:
    """The tokenizer in a folder, or at its URL, ready to encode on `device`.

    Args:
        layout: name of the block layout; None for the tokenizer's own.
        storage: how a URL is reached.

    Raises TokenizerError naming the file and the remedy, and ConfigError for a layout that it cannot give.
    """
    kind, contents = _open(local_folder(folder, storage))
    return kind.load(contents, kind.layout(contents.identity, layout)).to(device, precision)


def tokenizer_identity(folder: str | os.PathLike[str], storage: Storage | None = None) -> JSON:
    """What `Tokenizer.identity()` says of the tokenizer in a folder, without importing torch.

    A process digests the weights once, and again after the files have changed.

    Raises TokenizerError naming the file and the remedy.
    """
    path = local_folder(folder, storage)
    identity = _known_identity(path)
    return _open(path)[1].identity_json() if identity is None else identity


def told_identity(folder: Path) -> JSON:
    """`tokenizer_identity` as config.json tells it: weights that are others than it says are not noticed.

    Raises TokenizerError naming the file and the remedy.
    """
    config, path = read_config(folder), folder / CONFIG
    return TokenizerFolder(folder, config, _identity_of(_kind_of(config, path), config, path), {}).identity_json()


def layout_name(folder: str | os.PathLike[str], layout: str | None, storage: Storage | None = None) -> str:
    """Name of the block layout that the tokenizer in a folder gives where `layout` is asked for, None being its own.

    Raises TokenizerError naming the file and the remedy, and ConfigError for a layout that it cannot give.
    """
    path = local_folder(folder, storage) / CONFIG
    config = read_config(path.parent)
    kind = _kind_of(config, path)
    return kind.layout(_identity_of(kind, config, path), layout).name


def importers() -> dict[str, Importer]:
    """How folders are made of what is published, by kind; those of installed packages included. Imports no torch.

    A package that is broken is told on stderr, and stands in the way of no other kind.
    """
    found = {}
    for name, module in _known_kinds().items():
        try:
            importer = _kind_in(name, module).importer
        except TokenizerError as error:
            _say_once(f"vqtok: {error}")
            continue
        if importer is not None:
            found[name] = importer
    return found


def completed_tokenizer(identity: JSON) -> JSON:
    """An identity of any tokenizer with the keys that its kind did not have yet when it was written.

    One that no kind here can have stays as it is.
    """
    keys = {name: value for name, value in identity.items() if name != _KIND}
    try:
        complete = _kind_named(identity.get(_KIND, OURS)).identity(keys)
    except (LookupError, TypeError, ValueError, TokenizerError):
        return identity
    return {**identity, **complete.model_dump(mode="json")}


def trained_image_size(folder: str | os.PathLike[str], storage: Storage | None = None) -> tuple[int, int] | None:
    """Height and width in pixels of the images that the tokenizer was trained on; None where the folder does not say.

    Raises TokenizerError naming the file and the remedy.
    """
    return read_config(local_folder(folder, storage)).image_size


def _open(folder: Path) -> tuple[Kind[Any], TokenizerFolder[Any]]:
    """The folder's kind and contents. Files that were compared, and have not changed since, are not digested again."""
    unread = versions_of(folder, (CONFIG,))
    config = read_config(folder)
    kind = _kind_of(config, folder / CONFIG)
    identity = _identity_of(kind, config, folder / CONFIG)
    names = (CONFIG, *config.files)
    before = versions_of(folder, names)
    files = read_files(folder, config)
    # What changes while it is read is compared, and not remembered.
    settled = before is not None and before[:1] == unread and before == versions_of(folder, names)
    known = _compared.get(folder.absolute())
    if not settled or known is None or known[:2] != (names, before):
        compare_files(folder, files, identity.weights)
    contents = TokenizerFolder(folder, config, identity, files)
    if settled and before is not None:
        _compared[folder.absolute()] = names, before, contents.identity_json()
    return kind, contents


def _known_identity(folder: Path) -> JSON | None:
    """That of a folder whose files have been compared, and have not changed since."""
    known = _compared.get(folder.absolute())
    if known is None:
        return None
    names, versions, identity = known
    return copy.deepcopy(identity) if versions_of(folder, names) == versions else None


def _kind_of(config: FolderConfig, path: Path) -> Kind[Any]:
    try:
        return _kind_named(config.kind)
    except LookupError as error:
        raise TokenizerError(f"{path}: {error.args[0]}") from None


def _kind_named(name: str) -> Kind[Any]:
    """Raises LookupError naming the kinds that there are."""
    modules = KINDS if name in KINDS else _known_kinds()
    if name not in modules:
        raise LookupError(f"unknown kind {name!r}; known: {', '.join(modules)}")
    return _kind_in(name, modules[name])


def _kind_in(name: str, module: str) -> Kind[Any]:
    """The `KIND` of a module. Raises TokenizerError where that of an installed package has none."""
    try:
        kind = import_module(module).KIND
    except Exception as error:  # whatever a package of others may do
        if name in KINDS:
            raise
        reason = f"{type(error).__name__}: {error}"
    else:
        if isinstance(kind, Kind):
            return kind
        reason = f"its KIND is no {Kind.__module__}.{Kind.__name__}"
    raise TokenizerError(
        f"kind {name!r}: the installed package that brings it has none in its module {module} ({reason}); mend or "
        "uninstall it"
    )


@cache
def _say_once(text: str) -> None:
    say(text, error=True)


def _known_kinds() -> dict[str, str]:
    """Modules by name, with those of installed packages: it takes a while to look through what is installed."""
    return {**KINDS, **{e.name: e.module for e in entry_points(group="vqtok.tokenizers") if e.name not in KINDS}}


def _identity_of(kind: Kind[Any], config: FolderConfig, path: Path) -> Any:
    try:
        return kind.identity(config.identity)
    except ValidationError as error:
        raise TokenizerError(f"{path}: {explain(error, 'identity')}; {REMEDY}") from None
    except ValueError as error:
        raise TokenizerError(f"{path}: {error}") from None
