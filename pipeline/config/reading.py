"""Reading a configuration file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.config.explaining import explain
from pipeline.config.parsing import parse_yaml
from pipeline.config.places import examples, name_places
from pipeline.config.values import apply_override, expand_variables
from pipeline.config.whole import Config, ReaderConfig
from pipeline.errors import ConfigError

_MOST_BYTES = 16 << 20


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` overrides and check every field.

    Where the file names no place for the tokenizer or the store, they lie in `runs/<file name without extension>`
    below the working folder: a copy of a configuration has a run of its own.

    `${NAME}` in a value is the environment variable NAME; `${NAME:-default}` is `default` where NAME is unset or
    empty, as in a shell. Overrides are applied first, so that one can stand in for an unset variable.

    Raises ConfigError naming the file, the field, the value and what would be right.
    """
    return _load(Config, path, overrides)


def load_reader_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ReaderConfig:
    """Read only what a reader of the store needs, by the rules of `load_config`; the other sections may say anything.

    Raises ConfigError naming the file, the field, the value and what would be right.
    """
    return _load(ReaderConfig, path, overrides)


_Model = TypeVar("_Model", Config, ReaderConfig)


def _load(model: type[_Model], path: str | os.PathLike[str], overrides: Sequence[str]) -> _Model:
    tree = _read_tree(path)
    for override in overrides:
        apply_override(tree, override)
    # An unknown section stays, to be refused.
    written = {
        name: keys for name, keys in tree.items() if name in model.model_fields or name not in Config.model_fields
    }
    tree = expand_variables(written, str(path))
    if Path(path).is_file():  # a pipe has no name that means anything
        name_places(tree, Path(path).stem, model)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(detail, str(path), written) for detail in error.errors())) from None


def _read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sections of a YAML file as they are written."""
    try:
        tree = parse_yaml(_read_text(Path(path)))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; there are some to copy in {examples()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration file: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no sections; see {examples()}/sample.yaml")
    # A section whose keys are all commented out reads as null.
    return {name: {} if section is None else section for name, section in tree.items()}


def _read_text(path: Path) -> str:
    """A file, or a pipe, that holds no more than a configuration can."""
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"holds more than {_MOST_BYTES:,} bytes: no configuration; name many files by a pattern")
    return data.decode()
