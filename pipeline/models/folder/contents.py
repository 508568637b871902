"""The files of a tokenizer folder: read and compared, or written.

FOLDER/
  config.json          what the tokenizer is, with a digest of the files beside it
  model.safetensors    what inference needs; a kind may have other files, but never pickles, which can run code
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from pipeline.before import Before
from pipeline.errors import TokenizerError, in_words
from pipeline.files import LocalFiles
from pipeline.files.regular import read_regular
from pipeline.models.folder.weights import files_digest
from pipeline.records import JSON, Record

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
VERSION = 1
OURS = "vqtok"
"""The kind of the folders that name none."""

REMEDY = "`vqtok train` and `vqtok import` write such folders"
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")

Count = Annotated[int, Field(ge=1)]


class Identity(Protocol):
    """What every kind has in the `identity` of config.json: all that decides token values, but for the block layout."""

    @property
    def weights(self) -> str:
        """`files_digest` of the files beside config.json."""

    def tree(self) -> JSON:
        """As JSON: the kinds have a Record for it."""


IdentityT = TypeVar("IdentityT", bound=Identity)


def _inside(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of files that cannot lie anywhere but in the folder."""
    for name in names:
        path = PurePosixPath(name)
        if (
            not name.isprintable()
            or path.is_absolute()
            or ".." in path.parts
            or path.suffix in _PICKLES
            or str(path) in (".", CONFIG)
        ):
            raise ValueError(f"{name!r} names no file of the folder that can be opened safely")
    return names


class FolderConfig(Record):
    """config.json."""

    format: Literal["vqtok-tokenizer"] = "vqtok-tokenizer"
    version: int = VERSION
    kind: Annotated[str, Before(OURS)] = OURS
    """Which tokenizers it is one of; left out of the file where it is ours."""
    files: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_inside), Before((WEIGHTS,))] = (WEIGHTS,)
    """The files beside config.json that decide tokens, as relative POSIX paths; left out of the file likewise."""
    identity: JSON
    """All that decides token values, but for the block layout: as the kind says it, with `weights` their digest."""
    image_size: tuple[Count, Count] | None = None
    """Height and width of the training images; other sizes work too, and `vqtok tokenize` warns of them."""
    train: JSON | None = None
    """How it was trained, for people to read."""


@dataclass(frozen=True)
class TokenizerFolder(Generic[IdentityT]):
    """A tokenizer folder whose files have been read and compared with their digest."""

    path: Path
    config: FolderConfig
    identity: IdentityT
    """That of the configuration, as its kind understands it."""
    files: Mapping[str, bytes]
    """Contents by name."""

    def identity_json(self) -> JSON:
        """What stores hold of the tokenizer: its kind, where it is not ours, and its identity."""
        kind: JSON = {} if self.config.kind == OURS else {"kind": self.config.kind}
        return {**kind, **self.identity.tree()}


def has_tokenizer(folder: str | os.PathLike[str]) -> bool:
    """Whether a whole tokenizer is there: config.json is written last."""
    return (Path(folder) / CONFIG).is_file()


def read_config(folder: Path) -> FolderConfig:
    """config.json, checked but for what the kind of the tokenizer has in it.

    Raises TokenizerError naming the file and the remedy.
    """
    if not folder.is_dir():
        _refuse_pickles([folder])
        raise TokenizerError(f"{folder}: no such tokenizer folder; {REMEDY}")
    return parse_config(_read(folder / CONFIG), str(folder / CONFIG))


def parse_config(data: bytes, path: str) -> FolderConfig:
    """The contents of the config.json at `path`. Raises as `read_config` does."""
    try:
        tree = json.loads(data)
        if isinstance(tree, dict) and not FolderConfig.model_fields.keys() & tree.keys():
            raise TokenizerError(
                f"{path}: the settings of another library's model; make a tokenizer folder of it with "
                "`vqtok import KIND FOLDER OUT` (KIND: `vqtok import --help`)"
            )
        config = FolderConfig.model_validate(tree)
    except ValidationError as error:
        raise TokenizerError(f"{path}: {explain(error)}; {REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not valid JSON ({error}); {REMEDY}") from None
    if config.version != VERSION:
        raise TokenizerError(
            f"{path}: the folder has version {config.version}, this vqtok reads {VERSION}; upgrade vqtok"
        )
    return config


def read_files(folder: Path, config: FolderConfig) -> dict[str, bytes]:
    """The files that config.json names. Raises TokenizerError naming the file and the remedy."""
    return {name: _read(folder / name) for name in config.files}


def compare_files(folder: Path | str, files: Mapping[str, bytes], digest: str) -> None:
    """Raise TokenizerError unless the files are those that config.json was written for.

    Args:
        folder: where they are, or its URL, for the message.
        digest: that of `files_digest` in config.json.
    """
    try:
        found = files_digest(files)
    except ValueError as error:
        raise TokenizerError(f"{folder}/{error}; copy the folder again or train again") from None
    if found != digest:
        which = f"{folder}/{next(iter(files))}: not the weights" if len(files) == 1 else f"{folder}: not the files"
        raise TokenizerError(
            f"{which} that {CONFIG} was written for ({found} here, {digest} there); "
            f"copy {'both files' if len(files) == 1 else 'all of them'} again or train again"
        )


def write_folder(folder: str | os.PathLike[str], config: FolderConfig, files: Mapping[str, bytes]) -> None:
    """Write a tokenizer folder, or replace the one there; each file appears at once and whole.

    config.json comes last and holds a digest of the others, so a folder caught between them is noticed.
    """
    assert tuple(files) == config.files
    output = LocalFiles(folder)
    for name, data in files.items():
        output.put(name, data)
    output.put(CONFIG, config.to_json())


def explain(error: ValidationError, where: str = "") -> str:
    """The first of the errors: field, problem and value.

    Args:
        where: the field that holds what was checked.
    """
    detail: Any = error.errors()[0]
    field = ".".join(str(step) for step in ((where,) if where else ()) + detail["loc"])
    return f"{field}: {in_words(detail)} (got {detail['input']!r})"


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        if not (path.parent / WEIGHTS).exists():
            _refuse_pickles(sorted(path.parent.iterdir()) if path.parent.is_dir() else [])
        raise TokenizerError(f"{path}: missing; {REMEDY}") from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error


def _refuse_pickles(paths: list[Path]) -> None:
    for path in paths:
        if path.suffix in _PICKLES and path.is_file():
            raise TokenizerError(
                f"{path}: a pickle can run code when it is opened, so it is never loaded as it is; make a folder of a "
                "published tokenizer with `vqtok import KIND FILE FOLDER`, which opens nothing but tensors"
            )
