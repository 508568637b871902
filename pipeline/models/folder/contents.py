"""The tokenizer folder, as far as it can be read without torch.

FOLDER/
  config.json          what the tokenizer is, with a digest of the weights
  model.safetensors    what inference needs, float32; never pickles, which can run code when they are opened
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pipeline.errors import TokenizerError
from pipeline.models.folder.architectures import ARCHITECTURES
from pipeline.models.folder.weights import weights_digest
from pipeline.records import JSON, Normalization, Record

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
VERSION = 1

_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
_REMEDY = "`vqtok train` and `save_tokenizer` write such folders"

Count = Annotated[int, Field(ge=1)]

# Coarser than the clock of any file system in use.
_SETTLED_NS = 3 * 10**9

_Versions = tuple[tuple[int, ...], ...]


class TokenizerIdentity(Record):
    """All that decides token values, but for the block layout, which the store chooses."""

    architecture: str
    """Name of the model class, a key of `ARCHITECTURES`."""
    arguments: JSON
    """Keyword arguments of the class that decide what it computes."""
    normalization: Normalization
    """What the pixels have gone through."""
    downsampling: Count
    """Pixels per token along each side."""
    weights: str
    """Digest of what model.safetensors holds, see `weights_digest`."""


class FolderConfig(Record):
    """config.json."""

    format: Literal["vqtok-tokenizer"] = "vqtok-tokenizer"
    version: int = VERSION
    identity: TokenizerIdentity
    image_size: tuple[Count, Count] | None = None
    """Height and width of the training images; other sizes work too, and `vqtok tokenize` warns of them."""
    train: JSON | None = None
    """How it was trained, for people to read."""


_identities: dict[tuple[Path, _Versions | None], TokenizerIdentity] = {}
"""Those that this process has read, with the digest of their weights compared."""


def has_tokenizer(folder: str | os.PathLike[str]) -> bool:
    """Whether a whole tokenizer is there: config.json is written last."""
    return (Path(folder) / CONFIG).is_file()


def trained_image_size(folder: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Height and width in pixels of the images that the tokenizer was trained on; None where the folder does not say.

    Raises TokenizerError naming the file and the remedy.
    """
    return _read_config(Path(folder) / CONFIG).image_size


def read_folder(folder: str | os.PathLike[str]) -> tuple[FolderConfig, bytes]:
    """config.json, checked, and the bytes of model.safetensors, compared with the digest in config.json.

    Files that this process has compared, and that have not changed since, are not digested again.

    Raises TokenizerError naming the file and the remedy.
    """
    path = Path(folder)
    if not path.is_dir():
        _refuse_pickles([path])
        raise TokenizerError(f"{path}: no such tokenizer folder; {_REMEDY}")
    key = path.absolute(), _versions(path)
    config, weights = _read_config(path / CONFIG), _read(path / WEIGHTS)
    settled = key[1] is not None and key[1] == _versions(path)
    if not settled or _identities.get(key) != config.identity:
        _compare_weights(path / WEIGHTS, weights, config.identity.weights)
    if settled:
        _identities[key] = config.identity
    return config, weights


def tokenizer_identity(folder: str | os.PathLike[str]) -> JSON:
    """What `Tokenizer.identity()` says of the tokenizer in a folder, without importing torch.

    A process digests the weights once, and again after the files have changed.

    Raises TokenizerError naming the file and the remedy.
    """
    path = Path(folder)
    identity = _identities.get((path.absolute(), _versions(path))) or read_folder(folder)[0].identity
    return identity.tree()


def _versions(folder: Path) -> _Versions | None:
    """What the system says of the files of a folder; None where that cannot tell them from the next ones.

    A file that was written a moment ago may be written again within the same tick of the file system's clock.
    """
    try:
        stats = [(folder / name).stat() for name in (CONFIG, WEIGHTS)]
    except OSError:
        return None
    newest = max(time_ns for stat in stats for time_ns in (stat.st_mtime_ns, stat.st_ctime_ns))
    if time.time_ns() - newest < _SETTLED_NS:
        return None
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats)


def _read_config(path: Path) -> FolderConfig:
    try:
        config = FolderConfig.model_validate(json.loads(_read(path)))
    except ValidationError as error:
        raise TokenizerError(f"{path}: {_explain(error)}; {_REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not valid JSON ({error}); {_REMEDY}") from None
    if config.version != VERSION:
        raise TokenizerError(
            f"{path}: the folder has version {config.version}, this vqtok reads {VERSION}; upgrade vqtok"
        )
    name = config.identity.architecture
    if name not in ARCHITECTURES:
        raise TokenizerError(f"{path}: unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    try:
        ARCHITECTURES[name].arguments.model_validate(config.identity.arguments, strict=True)
    except ValidationError as error:
        raise TokenizerError(f"{path}: identity.arguments.{_explain(error)}; {_REMEDY}") from None
    return config


def _explain(error: ValidationError) -> str:
    """The first of the errors: field, problem and value."""
    detail = error.errors()[0]
    field = ".".join(str(step) for step in detail["loc"])
    return f"{field}: {detail['msg']} (got {detail['input']!r})"


def _compare_weights(path: Path, weights: bytes, digest: str) -> None:
    try:
        found = weights_digest(weights)
    except ValueError as error:
        raise TokenizerError(f"{path}: {error}; copy the folder again or train again") from None
    if found != digest:
        raise TokenizerError(
            f"{path}: not the weights that {CONFIG} was written for ({found} here, {digest} there); "
            "copy both files again or train again"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not (path.parent / WEIGHTS).exists():
            _refuse_pickles(sorted(path.parent.iterdir()))
        raise TokenizerError(f"{path}: missing; {_REMEDY}") from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error


def _refuse_pickles(paths: list[Path]) -> None:
    for path in paths:
        if path.suffix in _PICKLES and path.is_file():
            raise TokenizerError(
                f"{path}: a pickle can run code when it is opened, so it is never loaded; if you trust it, "
                "torch.load(..., weights_only=True) it into a SimpleVQVAE and write a folder with save_tokenizer"
            )
