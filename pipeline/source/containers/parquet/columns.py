"""Which columns of a Parquet file are what: the image, its label, its key, and what is kept.

Hugging Face writes an image as a struct {bytes, path}, and says in the schema's metadata what columns mean:
https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.printing import printable
from pipeline.source.selection import Selection

if TYPE_CHECKING:
    import pyarrow as pa

_DEFAULT_LABEL = "cls"
_LABELS = ("cls", "label")


@dataclass(frozen=True)
class Columns:
    """Names of columns; None for what there is not."""

    image: str
    is_struct: bool
    """Whether the image is a struct with `bytes`, and perhaps `path`."""
    has_path: bool
    label: str | None
    key: str | None
    keep: tuple[str, ...]
    classes: tuple[str, ...] | None
    """Names of the label's values, where the file tells them."""

    others: tuple[str, ...] = ()
    """Those that are not read, and could not be the image."""

    @property
    def read(self) -> list[str]:
        """All that are read, each once."""
        return list(dict.fromkeys(name for name in (self.image, self.label, self.key, *self.keep) if name is not None))


def find_columns(schema: "pa.Schema", source: SourceConfig, name: str) -> Columns:
    """Raises SourceError, which begins with `name`, for a file without the columns that are asked for."""
    features = _features(schema)
    image = _image_column(schema, source, features, name)
    fields = _fields_of(schema.field(image).type)
    for wanted in (*source.keep, *filter(None, [source.key])):
        _require(schema, wanted, "source.keep" if wanted in source.keep else "source.key", name)
    label = _label_column(schema, source, name)
    classes = features.get(label or "", {}).get("names")
    used = {image, label, source.key, *source.keep}
    return Columns(
        image=image,
        is_struct="bytes" in fields,
        has_path="path" in fields,
        label=label,
        key=source.key,
        keep=tuple(source.keep),
        classes=tuple(map(str, classes)) if isinstance(classes, list) else None,
        others=tuple(name for name in schema.names if name not in used and not Selection(source).is_image(name)),
    )


def _image_column(schema: "pa.Schema", source: SourceConfig, features: dict[str, Any], name: str) -> str:
    if source.image is not None:
        _require(schema, source.image, "source.image", name)
        kind = schema.field(source.image).type
        if not _may_be_image(kind):
            raise SourceError(
                f"{name}: source.image: the column {source.image} is {kind}, neither binary nor a struct with bytes"
            )
        return source.image
    found: list[str] = [field.name for field in schema if _may_be_image(field.type)]
    marked = [column for column in found if features.get(column, {}).get("_type") == "Image"]
    structs = [column for column in found if "bytes" in _fields_of(schema.field(column).type)]
    for candidates in (marked, structs, found):
        if len(candidates) == 1:
            return candidates[0]
    what = (
        f"several columns may be the image ({printable(', '.join(found))})" if found else "no column can be the image"
    )
    raise SourceError(f"{name}: {what}; name one in source.image; there are: {_listed(schema)}")


def _label_column(schema: "pa.Schema", source: SourceConfig, name: str) -> str | None:
    member = None if source.label_rule is None else source.label_rule.member
    if member is not None and member != _DEFAULT_LABEL:
        _require(schema, member, "source.label", name)
        return member
    return None if member is None else next((column for column in _LABELS if column in schema.names), None)


def _require(schema: "pa.Schema", column: str, field: str, name: str) -> None:
    if schema.names.count(column) != 1:
        what = "two columns" if column in schema.names else "no column"
        raise SourceError(f"{name}: {field}: {what} {column}; there are: {_listed(schema)}")


def _may_be_image(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    fields = _fields_of(kind)
    kind = fields.get("bytes", kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _fields_of(kind: "pa.DataType") -> dict[str, Any]:
    """Types of the fields of a struct, by name; none of anything else."""
    import pyarrow as pa

    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}


def _features(schema: "pa.Schema") -> dict[str, Any]:
    """What Hugging Face says of the columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _listed(schema: "pa.Schema") -> str:
    return printable(", ".join(f"{field.name} ({field.type})" for field in schema))
