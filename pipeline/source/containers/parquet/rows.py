"""Rows of a Parquet file as samples: the cells are members, as the files in a tar are."""

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.config import SourceConfig
from pipeline.source.containers.limits import Limits
from pipeline.source.containers.members import add_problem
from pipeline.source.containers.parquet.columns import Columns
from pipeline.source.extensions import IMAGE_EXTENSIONS
from pipeline.source.sample import Sample

KeyOf = Callable[[int, Mapping[str, Any]], str]
"""The key of a row, by its number and its cells."""


def key_by_column(column: str, stem: str) -> KeyOf:
    """The value of a column; where it is null, as without a column."""
    numbered = key_by_number(stem)
    return lambda row, cells: numbered(row, cells) if cells[column] is None else str(cells[column])


def key_by_path(column: str) -> KeyOf:
    """The path of the image without its extension, as a folder's file is called."""
    return lambda row, cells: path_key(cells[column]["path"])


def key_by_number(stem: str) -> KeyOf:
    """The name of the file and the number of the row."""
    return lambda row, cells: f"{stem}_{row:08d}"


def path_key(path: str) -> str:
    """A path without the extension of an image."""
    return path.rpartition(".")[0] if _extension(path) else path


def sample_of(
    row: int, cells: Mapping[str, Any], key: str, columns: Columns, source: SourceConfig, wanted: Callable[[str], bool]
) -> Sample:
    """A row as a sample. Its members are named as `source` asks for them."""
    limits = Limits.of(source)
    sample = Sample(row, key, {}, start=row)

    def put(name: str, data: bytes | None) -> None:
        if data is not None:
            is_wanted = wanted(name)
            if is_wanted and len(data) > limits.member_bytes:
                is_wanted = False
                add_problem(sample, name, limits.too_large(len(data)))
            sample.members[name] = data if is_wanted else None

    _put_image(sample, cells[columns.image], columns, source, put)
    if columns.label is not None and source.label_rule is not None and source.label_rule.member is not None:
        put(source.label_rule.member, as_bytes(cells[columns.label]))
    for name in columns.keep:
        if name not in sample.members:
            put(name, as_bytes(cells[name]))
    for name in columns.others:
        sample.members.setdefault(name, None)
    return sample


def _put_image(
    sample: Sample, cell: Any, columns: Columns, source: SourceConfig, put: Callable[[str, bytes | None], None]
) -> None:
    path = (cell or {}).get("path") if columns.has_path else None
    data = (cell or {}).get("bytes") if columns.is_struct else cell
    if data is None and path:
        sample.problems.append(f"no bytes in {columns.image}, only the path {path!r}; write the images into the file")
    put(source.image or _extension(path or "") or "jpg", data)


def _extension(path: str) -> str | None:
    """That of an image."""
    extension = PurePosixPath(path).suffix[1:].lower()
    return extension if extension in IMAGE_EXTENSIONS else None


def as_bytes(value: Any) -> bytes | None:
    """A cell as the file that it would be: text as UTF-8, bytes as they are, all else as JSON; None for null."""
    if value is None or isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_as_text)
    return text.encode("utf-8", "backslashreplace")


def _as_text(value: Any) -> str:
    """What JSON has no form for: times, decimals, bytes inside of something."""
    return value.hex() if isinstance(value, bytes) else str(value)
