"""Tokenizer folders at URLs: a copy of each is kept on this machine, named after its contents."""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import TokenizerError
from pipeline.files import Files, LocalFiles, files_at, is_url
from pipeline.files.locks import lock, unlock
from pipeline.models.folder.contents import (
    CONFIG,
    REMEDY,
    FolderConfig,
    compare_files,
    parse_config,
    read_config,
    read_files,
)
from pipeline.storage import Storage

_VARIABLE = "XDG_CACHE_HOME"


def local_folder(folder: str | os.PathLike[str], storage: Storage | None = None) -> Path:
    """A tokenizer folder as one on this machine: itself, or the copy of a URL, which is made if it is missing.

    Raises TokenizerError where there is none at a URL, or it cannot be fetched.
    """
    place = os.fspath(folder)
    if not is_url(place):
        return Path(place.removeprefix("file://"))
    return _copy(place.rstrip("/"), storage or Storage())


_sound: set[Path] = set()
"""Copies that this process has compared with their digest."""


def _copy(url: str, storage: Storage) -> Path:
    files = files_at(url, storage)
    with _reading(url):
        data = files.read(CONFIG)
    config = parse_config(data, f"{url}/{CONFIG}")
    # config.json has the digest of all the others, so its own says what the folder holds.
    copy = cache_folder() / hashlib.sha256(data).hexdigest()
    if not (copy in _sound and copy.is_dir()) and not _is_sound(copy):  # one that is there may lie where none can write
        with _writing(url, copy.parent):
            copy.parent.mkdir(parents=True, exist_ok=True)
            held = lock(copy.with_suffix(".lock"))  # the processes of a machine fetch it once
        try:
            if not _is_sound(copy):
                _fetch(url, files, config, data, copy)
        finally:
            unlock(held)
    _sound.add(copy)
    return copy


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise TokenizerError(f"{url}: no tokenizer folder there; {REMEDY}, to be uploaded as they are") from None
    except OSError as error:
        raise TokenizerError(f"{url}: cannot be copied: {error}") from error


@contextlib.contextmanager
def _writing(url: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TokenizerError(
            f"{url}: cannot be copied to {folder}: {error}; make room there, or set {_VARIABLE} to a folder that can "
            "be written"
        ) from error


def cache_folder() -> Path:
    """Where the copies are. Raises TokenizerError for a user without a home where no variable names a place."""
    try:
        home = os.environ.get(_VARIABLE) or Path.home() / ".cache"
    except RuntimeError as error:
        raise TokenizerError(f"{error}; set {_VARIABLE} to a folder for copies of tokenizers") from None
    return Path(home, "vqtok", "tokenizers")


def _is_sound(copy: Path) -> bool:
    """Whether a copy is there, with the bytes that its config.json tells of."""
    if not copy.is_dir():
        return False
    with contextlib.suppress(TokenizerError):
        config = read_config(copy)
        compare_files(copy, read_files(copy, config), config.identity.get("weights", ""))
        return True
    return False


def _fetch(url: str, files: Files, config: FolderConfig, data: bytes, copy: Path) -> None:
    """Make the copy, or make it anew; it appears whole. Raises TokenizerError, also for other files than told."""
    with _reading(url):
        contents = {name: _read(files, name) for name in config.files}
    compare_files(files.root, contents, config.identity.get("weights", ""))
    new = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
    try:
        with _writing(url, copy.parent):
            for name, piece in {**contents, CONFIG: data}.items():
                LocalFiles(new).put(name, piece, durable=False)
            shutil.rmtree(copy, ignore_errors=True)
            new.rename(copy)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _read(files: Files, name: str) -> bytes:
    """All of a file, in ranges: a single request for a large one might take longer than a request may."""
    with files.open(name) as stream:
        return stream.read()
