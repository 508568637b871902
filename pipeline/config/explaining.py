"""What is wrong with a configuration, in one line for each."""

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from pipeline.config.section import BadKey
from pipeline.config.values import names_variable
from pipeline.config.whole import Config
from pipeline.errors import in_words
from pipeline.redaction import redacted_tree

# Steps of an error's location that name alternatives of a type and not what the user wrote.
_PYDANTIC_STEPS = ("function-", "constrained-", "literal[", "either-")


def explain(detail: Any, file: str, written: Any) -> str:
    """One line for one pydantic error.

    Args:
        written: the sections before environment variables were filled in: their values, which may be secrets, are
            not repeated.
    """
    where = [str(step) for step in detail["loc"] if not str(step).startswith(_PYDANTIC_STEPS)]
    name = ".".join(where)
    if detail["type"] == "extra_forbidden":
        known = _fields_of(where[:-1])
        guess = get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {guess[0]}?" if guess else f"known: {', '.join(known)}"
        return f"{file}: {name}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{file}: {name}: missing"
    reason = detail.get("ctx", {}).get("error")
    if isinstance(reason, BadKey):
        given = _as_written(written, [*where, reason.key], reason.value)
        return f"{file}: {name}.{reason.key}: {reason} (got {given!r})"
    return f"{file}: {name}: {in_words(detail)} (got {_as_written(written, where, detail['input'])!r})"


def _as_written(written: Any, where: list[str], value: Any) -> Any:
    """`value`, or what stands for it in the file if that names a variable."""
    found = written
    for step in where:
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            break  # one text may stand for a list of one
    return redacted_tree(found if names_variable(found) else value)


def _fields_of(where: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for step in where:
        model = _section_in(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field is, or that is one of the alternatives for it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
