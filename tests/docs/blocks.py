"""The fenced blocks of a Markdown page, and the commands within its text."""

import re
from dataclasses import dataclass
from pathlib import Path

from support import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
MARKS = ("", "not run", "slow")

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^:>]*): (?P<reason>[^>]*) -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"`([^`\n]+)`")
_KEY = re.compile(r"((?:source|image|tokenizer|train|tokenize)(?:\.[a-z_]+)+)(?=$|[=:])")
_COMMAND = re.compile(r"(\w+=\S* )*((vqtok|make|pytest|python|torchrun|accelerate|pip) |(\.venv|scripts)/\S+( |$))")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    """Its file, below the repository."""
    line: int
    """Where its first line of code stands, from 1."""
    language: str
    code: str
    mark: str = ""
    """One of MARKS."""

    @property
    def place(self) -> str:
        """`page:line`."""
        return f"{self.page}:{self.line}"


def read_page(page: str) -> str:
    """The text of one of PAGES."""
    return Path(ROOT / page).read_text()


def blocks_of(text: str, page: str = "page.md") -> list[Block]:
    """The fenced blocks of a page in order. Raises ValueError for a fence or a mark that would be overlooked."""
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        mark = match["mark"] or ""
        if mark not in MARKS:
            raise ValueError(f"{page}:{line}: {mark!r} is none of the marks {', '.join(MARKS[1:])}")
        found.append(Block(page, line, match["language"], match["code"], mark))
    fences = len(re.findall(r"^ *```", text, re.MULTILINE))
    if fences != 2 * len(found):
        raise ValueError(f"{page}: {fences} fences for {len(found)} blocks; is one indented, or not closed?")
    marks = re.findall(r"^ *<!-- (?:not run|slow)\b", text, re.MULTILINE)
    if len(marks) != sum(block.mark != "" for block in found):
        raise ValueError(f"{page}: a mark is on no block; write it as <!-- not run: why --> on the line before")
    return found


def commands_in_text(text: str) -> list[str]:
    """What is set in backquotes outside of fenced blocks and reads like a command, such as `make lint`."""
    return [span for span in _SPAN.findall(_BLOCK.sub("", text)) if _COMMAND.match(span)]


def commands_in_head(text: str) -> list[str]:
    """Commands in the comment at the head of a configuration or a script, each indented by three spaces."""
    return [line for line in re.findall(r"^#   (.*)$", text, re.MULTILINE) if _COMMAND.match(line)]


def keys_in_text(text: str) -> list[str]:
    """Keys of a configuration in backquotes outside of fenced blocks, such as `source.shards`; no file names."""
    matches = [_KEY.match(span) for span in _SPAN.findall(_BLOCK.sub("", text)) if not span.endswith(".json")]
    return [match[1] for match in matches if match]
