"""The errors meant for users. Each message names the value, the file and the remedy.

The command line prints the message alone and exits with `exit_status`; anything else that escapes is a
defect of vqtok and keeps its traceback.

Messages end on terminals, in logs and in stores, and quote what strangers have named and what configurations hold. So
an error is made without control characters and without secrets (`shown`), wherever it is raised.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.printing import shown


class VqtokError(Exception):
    """Base of every error that a user can act on."""

    exit_status = 1

    def __init__(self, *message: object) -> None:
        super().__init__(*(shown(part) if isinstance(part, str) else part for part in message))


class ConfigError(VqtokError):
    """The configuration cannot be used as it is."""

    exit_status = 2


class SourceError(VqtokError):
    """A source shard cannot be read to its end as it should; it stays pending."""


class BadSample(VqtokError):
    """One sample cannot be tokenized. It costs itself (a reject), never its source shard."""

    stage = "select"


class BadLabel(BadSample):
    """The label member of a sample is not an integer."""

    stage = "label"


class BadImage(BadSample):
    """The image of a sample cannot be turned into pixels."""

    stage = "decode"


class TokenizerError(VqtokError):
    """A tokenizer folder cannot be used, or the tokenizer cannot do what is asked of it."""


class TrainingDiverged(TokenizerError):
    """A training has gone wrong, and left no tokenizer."""


class StoreError(VqtokError):
    """A token store cannot be used as it is."""


class IncompleteStore(StoreError):
    """The store has no manifest yet: source shards are still pending."""


class CorruptStore(StoreError):
    """What the store holds is not what its commit records say."""


class IdentityMismatch(StoreError):
    """The job would write tokens of another kind than those in the store."""


class ExportError(VqtokError):
    """An export cannot be written to its end."""


def in_words(detail: Mapping[str, Any]) -> str:
    """What pydantic says of a value, without the name that it has for errors of our own checks."""
    return str(detail["msg"]).removeprefix("Value error, ")
