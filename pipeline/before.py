"""Keys that came later: what a file means that was written before there were such keys."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python


@dataclass(frozen=True)
class Before:
    """Stands in the annotation of a field for what was done before there was this key.

        views: Annotated[Literal["center", "ten"], Before("center")] = "center"

    A file that lacks the key means this value, whatever the default is or becomes; in a Record, which is read from
    such files, the default is the same.
    """

    value: Any


def completed(model: type[BaseModel], tree: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object of `model` with every key that came later: those that it lacks have their Before.

    Other keys are not made up, and those that `model` does not know stay. Objects in a tuple of models, or in a dict
    of them, are treated alike.
    """
    missing = {name: deepcopy(value) for name, value in _before(model).items() if name not in tree}
    return {name: _in_section(model, name, value, completed) for name, value in tree.items()} | missing


def concise(model: type[BaseModel], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the keys that say no more than their absence, so that it is written as it was before them."""
    needless = _before(model)
    return {
        name: _in_section(model, name, value, concise)
        for name, value in tree.items()
        if name not in needless or needless[name] != value
    }


@cache
def _before(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a model that came later, with their values as JSON has them."""
    return {
        name: to_jsonable_python(mark.value)
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Before)
    }


def _in_section(model: type[BaseModel], name: str, value: Any, change: Any) -> Any:
    """`change` of a value that is itself an object with keys, or holds such objects; others as they are."""
    field = model.model_fields.get(name)
    return _in_kind(field.annotation, value, change) if field else value


def _in_kind(kind: Any, value: Any, change: Any) -> Any:
    if _is_model(kind) and isinstance(value, Mapping):
        return change(kind, value)
    inner = get_args(kind)[-2:]
    if get_origin(kind) is tuple and inner[1:] == (...,) and isinstance(value, list) and _is_model(inner[0]):
        return [_in_kind(inner[0], item, change) for item in value]
    if get_origin(kind) is dict and isinstance(value, Mapping) and _is_model(inner[1]):
        return {key: _in_kind(inner[1], item, change) for key, item in value.items()}
    return value


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
