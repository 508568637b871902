"""What a configuration says of a loader."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import TokenizeConfig, load_reader_config
from pipeline.errors import VqtokError
from pipeline.files import is_url
from pipeline.store.reader import TokenStore


def options_of(path: str | os.PathLike[str], overrides: Sequence[str]) -> tuple[TokenizeConfig, dict[str, Any]]:
    """The section `tokenize` of a YAML file, and the arguments of its section `loader`. Raises ConfigError."""
    config = load_reader_config(path, overrides)
    return config.tokenize, config.loader.model_dump()


def store_of(tokenize: TokenizeConfig, config: str | os.PathLike[str]) -> TokenStore:
    """The store that a configuration names; errors name the configuration, too."""
    store = tokenize.store
    try:
        return TokenStore(store, storage=tokenize.storage)
    except VqtokError as error:
        relative = not is_url(store) and not Path(store.removeprefix("file://")).expanduser().is_absolute()
        hint = f"; the path is relative to the working folder, which is {Path.cwd()}" if relative else ""
        raise type(error)(f"{config}: tokenize.store: {error}{hint}") from error
