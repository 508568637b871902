"""Digests that records carry of themselves: a record with one is as it was written, or it is refused.

The last key of a sealed record is `sha256`, of its bytes without that line. So a reader of ten thousand parts hashes a
file once, and parses it once.
"""

import hashlib
import re
from typing import Protocol, Self, TypeVar

from pydantic import ValidationError

from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file

_SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')
_SEAL_BYTES = 82
_END = b"\n}\n"


def sealed(data: bytes) -> bytes:
    """The JSON of a record with its own digest."""
    return b'%s,\n "sha256": "%s"%s' % (data.removesuffix(_END), hashlib.sha256(data).hexdigest().encode(), _END)


def unsealed(data: bytes) -> tuple[bytes, bool]:
    """A record without its digest, and whether it had one. Raises ValueError where it is not that of the record."""
    found = _SEAL.search(data, max(len(data) - _SEAL_BYTES, 0))
    if found is None:
        return data, False
    record = data[: found.start()] + _END
    if hashlib.sha256(record).hexdigest().encode() != found[1]:
        raise ValueError("it was edited or damaged: its sha256 is not that of its contents")
    return record, True


class _Model(Protocol):
    @classmethod
    def model_validate_json(cls, data: bytes, /) -> Self: ...


_Kind = TypeVar("_Kind", bound=_Model)


def read_record(files: Files, path: str, kind: type[_Kind], called: str, remedy: str = "") -> tuple[_Kind, bool]:
    """A record of a store, and whether it carries a digest of itself.

    Args:
        called: what it is for people, such as `a commit record`.
        remedy: what to do about another file in its place.

    Raises FileNotFoundError without one, CorruptStore for one that cannot be read or was changed.
    """
    with naming_no_file(files, path, f"not {called}"):
        data = files.read(path)
    try:
        data, has_seal = unsealed(data)
        return kind.model_validate_json(data), has_seal
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    except ValueError as error:
        reason = str(error)
    raise damaged(files, path, f"not {called} ({reason}){remedy}")
