"""Kept members of samples, as formats write them."""

import base64
from collections.abc import Iterable


def names_beside(taken: Iterable[str], fields: Iterable[str]) -> dict[str, str]:
    """From the names of fields to those that they are written under, in order: a name that is taken is lengthened."""
    used, names = set(taken) | set(fields), dict[str, str]()
    for field in fields:
        name = field
        while name in (set(taken) | set(names.values())) or (name != field and name in used):
            name = f"kept_{name}"
        names[field] = name
    return names


def as_json(data: bytes | None) -> str | dict[str, str] | None:
    """Text where it is UTF-8, else an object with the key `base64`; None where there is none."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
