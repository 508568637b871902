"""`source.label`: where the class of a sample is found."""

import re
from typing import Literal, NamedTuple, Self

MEMBER = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
_KINDS: dict[str, Literal["json", "prefix", "table"]] = {"json": "json", "prefix": "prefix", "table": "table"}


def checked_member(text: str) -> str:
    """The same text. Raises ValueError for what no member and no column is called."""
    if not re.match(MEMBER, text):
        dot = f"; write {text[1:]}, without the dot" if re.match(MEMBER, text[1:]) and text[0] == "." else ""
        raise ValueError(f"neither an extension, such as txt, nor a column{dot}")
    return text


class LabelRule(NamedTuple):
    """A `source.label`, taken apart."""

    kind: Literal["member", "json", "folder", "prefix", "table"]
    argument: str
    """The extension or column, the dotted path into JSON, the separator, or the file."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises ValueError for what is no rule."""
        if text == "folder":
            return cls("folder", "")
        kind, colon, argument = text.partition(":")
        if colon and kind in _KINDS and argument:
            return cls(_KINDS[kind], argument)
        if not re.match(MEMBER, text):
            raise ValueError(
                "neither an extension such as cls, nor json:PATH, folder, prefix:SEPARATOR or table:FILE, such as "
                "json:meta.class_id, prefix:_ or table:labels.csv"
            )
        return cls("member", text)

    @property
    def member(self) -> str | None:
        """The extension of the member, or the column, that must be read; None where names tell the class."""
        return {"member": self.argument, "json": "json"}.get(self.kind)

    @property
    def is_by_name(self) -> bool:
        """Whether what is found is the name of a class, be it made of digits."""
        return self.kind in ("folder", "prefix")


def checked_rule(text: str) -> str:
    """The same text. Raises ValueError for what is no rule."""
    LabelRule.of(text)
    return text
