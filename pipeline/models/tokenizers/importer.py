"""How a kind of tokenizer takes over what its authors publish: what `vqtok import` knows of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.models.folder.contents import FolderConfig

Options = Mapping[str, Any]
"""What was asked for, by the name of the option; one that was not given is not there."""


@dataclass(frozen=True)
class ImportOption:
    """Something that the published files do not say."""

    name: str
    """As on the command line, without its dashes: `patch-nums`."""
    help: str
    """A sentence that says what is assumed without it."""
    metavar: str = ""
    """What stands for its value in the help; empty for a flag."""
    parse: Callable[[str], Any] | None = None
    """From text to value; None for a flag, whose value is True. Raises ValueError with a sentence."""


@dataclass(frozen=True)
class Imported:
    """A tokenizer folder that is not written yet."""

    config: FolderConfig
    files: Mapping[str, bytes]
    """As `write_folder` takes them."""


@dataclass(frozen=True)
class Importer:
    """What a kind can import, and how."""

    help: str
    """A sentence: what is imported."""
    metavar: str
    """What SOURCE is: `FILE`, `FOLDER`."""
    read: Callable[[str, Options], Imported]
    """Reads SOURCE. Imports torch at the earliest when it is called.

    Raises TokenizerError naming the file and the remedy, ConfigError for a SOURCE that is not there."""
    options: tuple[ImportOption, ...] = ()


def numbers_of(text: str) -> tuple[int, ...]:
    """`1,2,3` as numbers. Raises ValueError."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: write whole numbers with commas between them, such as 1,2,3,4") from None
