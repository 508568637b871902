"""What a label says: an index, or the name of a class."""

import json
import re
from typing import Any

from pipeline.errors import BadLabel

_RANGE = range(-(2**63), 2**63)
_WHOLE = re.compile(r"\s*([+-]?\d+)\.0*\s*", re.ASCII)


def index_in(text: str, where: str, shown: object) -> int | None:
    """The integer that a text says, also as `1.0`; None for other text.

    Raises BadLabel for one beyond 64 bits: `where` holds `shown`.
    """
    whole = _WHOLE.fullmatch(text)
    try:
        index = int(whole[1] if whole else text)
    except ValueError:
        return None
    if not text.isascii():  # Python reads the digits of all scripts
        return None
    if index not in _RANGE:
        raise BadLabel(f"{where} holds {shown!r}, which does not fit 64 bits")
    return index


def value_in_json(data: bytes, path: str) -> str | None:
    """What stands in a JSON document at a dotted path, as text; None for nothing, and for null.

    Keys may have dots themselves: the longest that is there counts.

    Raises BadLabel for what is no JSON, and for a value that is neither text nor a number.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise BadLabel(f".json holds {data[:40]!r}, no JSON") from None
    value = _at(tree, path)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadLabel(f".json holds {str(value)[:40]!r} at {path}, neither text nor a number")
    return str(value)


def _at(tree: Any, path: str) -> Any:
    if not isinstance(tree, dict):
        return None
    if path in tree:
        return tree[path]
    steps = path.split(".")
    for end in range(len(steps) - 1, 0, -1):
        if (head := ".".join(steps[:end])) in tree:
            return _at(tree[head], ".".join(steps[end:]))
    return None
