"""Keys that came later: what a file means that was written before there were such keys."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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

    Other keys are not made up, those that `model` does not know stay, and objects in lists are left alone.
    """
    missing = {name: value for name, value in _before(model) if name not in tree}
    return {name: _in_section(model, name, value, completed) for name, value in tree.items()} | missing


def concise(model: type[BaseModel], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the keys that say no more than their absence, so that it is written as it was before them."""
    needless = dict(_before(model))
    return {
        name: _in_section(model, name, value, concise)
        for name, value in tree.items()
        if name not in needless or needless[name] != value
    }


def _before(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """The keys of a model that came later, with their values as JSON has them."""
    for name, field in model.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Before):
                yield name, to_jsonable_python(mark.value)


def _in_section(model: type[BaseModel], name: str, value: Any, change: Any) -> Any:
    """`change` of a value that is itself an object with keys; others as they are."""
    field = model.model_fields.get(name)
    kind = field.annotation if field else None
    is_section = isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, Mapping)
    return change(kind, value) if is_section else value
