"""What is printed, and nothing that a terminal would obey: names, keys and captions are strangers' data.

printable     a text on one line
shown         a message of several lines, without secrets either: all errors of vqtok are made of it
say           the one way to standard output and standard error
"""

import json
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from pipeline.redaction import redacted, redacted_tree


def printable(text: str) -> str:
    """`text` on one line, with escapes such as `\\x1b` or `\\n` for control characters, line ends, marks that turn the
    direction of writing, and halves of surrogate pairs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for each line of a text; the lines stay."""
    return "\n".join(map(printable, text.split("\n")))


def shown(text: str) -> str:
    """A message as it may be printed, or written down."""
    return printable_lines(redacted(text))


def one_line(error: BaseException | str) -> str:
    """A message as an item of a list of messages: none can pass for several."""
    return printable(redacted(str(error)))


def say(text: object, *, error: bool = False, is_data: bool = False, end: str = "\n") -> None:
    """Print a text of one or several lines.

    Args:
        error: on standard error.
        is_data: it was asked for as it is, as a caption, so that what looks like a secret stays.
    """
    lines = printable_lines(str(text)) if is_data else shown(str(text))
    print(lines, end=end, file=sys.stderr if error else sys.stdout, flush=True)


def say_json(tree: Any, *, is_data: bool = False, indent: int | None = 1) -> None:
    """Print JSON for programs, in ASCII. `is_data` as in `say`."""
    print(json.dumps(tree if is_data else redacted_tree(tree, redacted), indent=indent), flush=True)


def say_tracebacks() -> None:
    """From here on, print the tracebacks of exceptions that nobody has caught by `say`."""

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        _say_traceback(failed.exc_type, failed.exc_value, failed.exc_traceback)

    sys.excepthook = _say_traceback
    threading.excepthook = of_thread


def _say_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):
        say("".join(traceback.format_exception(kind, error, trace)), error=True, end="")
