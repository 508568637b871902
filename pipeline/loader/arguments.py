"""Numbers that users pass, of Python or of numpy."""

import operator
from typing import Any

import numpy as np


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """An integer of any kind as one of Python, which every state and every message can hold.

    Raises ValueError naming the argument for what is no integer, or one below `least`.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number
