"""What a configuration says of a loader."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import load_reader_config
from pipeline.errors import VqtokError
from pipeline.files import is_url
from pipeline.store.reader import TokenStore


def options_of(path: str | os.PathLike[str], overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The place of the store of a YAML file, and the arguments of its section `loader`. Raises ConfigError."""
    config = load_reader_config(path, overrides)
    return config.tokenize.store, config.loader.model_dump()


def store_of(store: str, config: str | os.PathLike[str]) -> TokenStore:
    """The store that a configuration names; errors name the configuration, too."""
    try:
        return TokenStore(store)
    except VqtokError as error:
        relative = not is_url(store) and not Path(store.removeprefix("file://")).expanduser().is_absolute()
        hint = f"; the path is relative to the working folder, which is {Path.cwd()}" if relative else ""
        raise type(error)(f"{config}: tokenize.store: {error}{hint}") from error
