"""What the sections of a configuration have in common."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from pipeline.config.label import checked_member, checked_rule
from pipeline.storage import Storage


class Section(BaseModel):
    """A section: frozen, and strict about keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes`, `on`, `no` and `off` as booleans too, and pydantic would count them as 1 and 0."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true or false does not belong here; quote the word if a text is meant")
        return value


class BadKey(ValueError):
    """Raised by a validator of a whole section for one of its keys, which does not go with the others."""

    def __init__(self, key: str, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.key = key
        self.value = value


def one_or_many(value: Any) -> Any:
    """One text as a list of it."""
    if isinstance(value, str):
        return [value] if value else []  # an unset variable with an empty default names nothing
    return value


def both_sides(value: Any) -> Any:
    """One side of a square as height and width."""
    # Text too: the value of an environment variable is one.
    return (value, value) if isinstance(value, int | str) else value


_ONE_SLASH = re.compile(r"(s3|gs|az|abfss?|hf|https?|file):/(?!/)", re.IGNORECASE)
_BARE_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")


def checked_place(place: str) -> str:
    """A folder, file or URL. Raises ValueError for what would make a folder of an odd name and was meant otherwise."""
    if match := _ONE_SLASH.match(place):
        root = "/" if match[1].lower() == "file" else ""
        raise ValueError(f"a URL has two slashes behind its colon: write {match[1]}://{root}{place[match.end() :]}")
    if (match := _BARE_VARIABLE.search(place)) and "://" not in place and not Path(place).exists():
        raise ValueError(f"an environment variable is written ${{{match[1]}}}, with braces")
    return place


Patterns = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]
Side = Annotated[int, Field(ge=1, le=16384)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(checked_place)]
Member = Annotated[str, AfterValidator(checked_member)]
"""An extension, or a column."""
Reached = Annotated[Storage, Field(exclude=True)]
"""How a URL is reached: no part of what is written down or compared."""
Label = Annotated[str, AfterValidator(checked_rule)]
"""See `LabelRule`."""
