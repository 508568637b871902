"""Every tensor of a published checkpoint accounted for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.printing import printable

Shape = tuple[int, ...]

_LISTED = 20
"""Names that a message lists of each sort."""


def shape_of(value: Any) -> Shape:
    """The shape of a tensor; that of a scalar for what is none."""
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def account_for(
    found: Mapping[str, Shape], wanted: Mapping[str, Shape], path: Path, others: Iterable[str] = ()
) -> None:
    """Raise TokenizerError, listing every name that is missing, left over or of another shape, unless all is as wanted.

    Args:
        path: of the checkpoint.
        others: more names that are left over.
    """
    groups = {
        "missing": sorted(wanted.keys() - found.keys()),
        "left over": sorted({*others, *(found.keys() - wanted.keys())}),
        "of another shape": [
            f"{name} {_text(found[name])} where {_text(wanted[name])} fits"
            for name in sorted(wanted.keys() & found.keys())
            if found[name] != wanted[name]
        ],
    }
    lines = [f"  {what}: {_some(names)}" for what, names in groups.items() if names]
    if lines:
        raise TokenizerError("\n".join([f"{path}: not the tensors of such a tokenizer:", *lines]))


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(map(printable, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")
