"""Tables of labels as files: a CSV of key and label, or one label a line in the order of the keys."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.errors import ConfigError
from pipeline.files import files_at
from pipeline.files.secret_urls import refuse_credentials
from pipeline.source.extensions import IMAGE_EXTENSIONS
from pipeline.source.labels.table import Table
from pipeline.storage import Storage

_HEADINGS = frozenset({"label", "labels", "class", "class_id", "cls", "target"})


def read_lines(file: str, field: str, storage: Storage | None = None) -> list[str]:
    """The lines of a text file, or one at a URL, without their ends. Raises ConfigError."""
    refuse_credentials(file, field)
    folder, _, name = file.rpartition("/")
    root = folder or ("/" if file.startswith("/") else ".")
    try:
        return files_at(root, storage).read(name).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{field}: {file}: no UTF-8 text ({error}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{field}: {file} cannot be read: {error.strerror or error}") from None


def read_table(file: str, storage: Storage | None = None) -> Table:
    """Raises ConfigError for a file that cannot be read, or is neither kind of table."""
    lines = read_lines(file, "source.label", storage)
    try:
        rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if row]
    except csv.Error as error:
        raise ConfigError(f"source.label: {file}: no table of lines `key,label`: {error}") from None
    if not rows:
        raise ConfigError(f"source.label: {file}: it is empty")
    columns = len(rows[0][1])
    for number, row in rows:
        if len(row) != columns or columns > 2:
            raise ConfigError(
                f"source.label: {file}: line {number} has {len(row)} columns; a table has lines of `key,label`, or of "
                "one label in the order of the keys"
            )
    if columns == 1:
        return Table(file, {}, [row[0].strip() for _, row in rows])
    if rows[0][1][1].strip().lower() in _HEADINGS:
        rows = rows[1:]
    if not (by_key := _by_key(file, rows)):
        raise ConfigError(f"source.label: {file}: no key in it has a label")
    return Table(file, by_key, ())


def table_digest(file: str, storage: Storage | None = None) -> str:
    """sha256 of what a table says, in hex: the same wherever it lies, and whatever ends its lines. As `read_table`."""
    table = read_table(file, storage)
    lines = [f"{key}\0{label}" for key, label in sorted(table.by_key.items())] or table.in_order
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _by_key(file: str, rows: Sequence[tuple[int, Sequence[str]]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, (name, label) in rows:
        key = _key(name.strip())
        if label.strip() and (before := found.setdefault(key, label.strip())) != label.strip():
            raise ConfigError(
                f"source.label: {file}: line {number}: {key!r} has another label before, {before!r} instead of "
                f"{label.strip()!r}; the key comes first in a line, and once in a table"
            )
    return found


def _key(name: str) -> str:
    """A key, which may be given as the name of the image."""
    name = name.removeprefix("./")
    is_image = PurePosixPath(name).suffix[1:].lower() in IMAGE_EXTENSIONS
    return name.rpartition(".")[0] if is_image else name
