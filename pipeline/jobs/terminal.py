"""Text for terminals: how wide it is, and how to replace it in place."""

import shutil
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from pipeline.printing import shown


def width_of(text: str) -> int:
    """Columns that printable text takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def cut(text: str, columns: int) -> str:
    """`text`, with `…` for what does not fit into so many columns."""
    if width_of(text) <= columns:
        return text
    while text and width_of(text) >= columns:
        text = text[:-1]
    return text + "…"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns; columns of numbers, but for their first row, to the right."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(width_of, column)) for column in columns]
    right = [len(column) > 1 and all(text[:1].isdigit() for text in column[1:]) for column in columns]
    return ["  ".join(map(_padded, row, widths, right)).rstrip() for row in rows]


def fitted(text: str, stream: TextIO) -> str:
    """`text` cut to the width of a terminal; whole where the stream is none."""
    if not stream.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return "\n".join(cut(line, columns) for line in text.splitlines())


class InPlace:
    """Prints texts over each other on a terminal, and one behind the other elsewhere.

    Nothing about the terminal needs putting back: whoever is killed meanwhile leaves the last text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines = 0

    def show(self, text: str) -> None:
        text = shown(text)
        if not self._stream.isatty():
            print(text, flush=True, file=self._stream)
            return
        columns, height = shutil.get_terminal_size()
        lines = [cut(line, columns - 1) for line in text.splitlines()]
        if len(lines) > height - 1:
            lines[max(height - 2, 0) :] = ["…"]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        # Each line is cleared behind its end, and what is left of a longer text below the last one.
        print(
            f"{up}\r" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", file=self._stream, flush=True
        )
        self._lines = len(lines)


def _padded(text: str, width: int, right: bool) -> str:
    padding = " " * (width - width_of(text))
    return padding + text if right else text + padding
