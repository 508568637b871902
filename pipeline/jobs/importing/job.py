"""Importing a tokenizer: read what is published, write a folder, load it, and only then let it appear."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, TokenizerError
from pipeline.files.secret_urls import refuse_credentials
from pipeline.models.folder.contents import write_folder
from pipeline.models.tokenizers.registry import importers, layout_name, load_tokenizer


@dataclass(frozen=True)
class ImportResult:
    """What came of it."""

    folder: Path
    kind: str
    vocab_size: int
    embedding_dim: int
    downsampling: int
    layout: str
    var_input: str

    def __str__(self) -> str:
        return (
            f"{self.folder}: a tokenizer of kind {self.kind}: {self.vocab_size:,} codes of length "
            f"{self.embedding_dim}, {self.downsampling} pixels per token along each side, layout {self.layout}, rule "
            f"{self.var_input}\nName it in a configuration: tokenizer: {{path: {self.folder}}}"
        )


def run(kind: str, source: str, out: Path, options: Mapping[str, Any] | None = None) -> ImportResult:
    """Make the tokenizer folder `out`, which appears whole or not at all.

    Args:
        source: what the kind's importer reads, such as the path of a checkpoint.
        options: of that importer, by name.

    Raises ConfigError for a kind, option or place that cannot be, TokenizerError for what is no such tokenizer.
    """
    refuse_credentials(source)
    known = importers()
    if kind not in known:
        raise ConfigError(f"no kind {kind!r} that can be imported; known: {', '.join(known)}")
    unknown = (options or {}).keys() - {option.name for option in known[kind].options}
    if unknown:
        raise ConfigError(f"importing {kind} has no option {min(unknown)!r}")
    _refuse_occupied(out)
    try:
        imported = known[kind].read(source, options or {})
    except TokenizerError as error:
        raise TokenizerError(f"{error}{_hint(kind, source, out)}") from error
    with _appearing(out) as folder:
        write_folder(folder, imported.config, imported.files)
        try:
            tokenizer, layout = load_tokenizer(folder), layout_name(folder, None)
        except TokenizerError as error:
            raise TokenizerError(str(error).replace(str(folder), str(out))) from None
    codebook = tokenizer.codebook
    return ImportResult(
        folder=out,
        kind=kind,
        vocab_size=codebook.vocab_size,
        embedding_dim=codebook.embedding_dim,
        downsampling=tokenizer.downsampling,
        layout=layout,
        var_input=tokenizer.rule.name,
    )


def _hint(kind: str, source: str, out: Path) -> str:
    """The kind that SOURCE is of, where it is another one's."""
    known = importers()
    for other, importer in known.items():
        if other != kind and importer.metavar == known[kind].metavar:
            with contextlib.suppress(TokenizerError, ConfigError):
                importer.read(source, {})
                return f"\nIt is a tokenizer of kind {other}: vqtok import {other} {source} {out}"
    return ""


def _refuse_occupied(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if os.path.lexists(out):
        raise ConfigError(f"{out}: is there already; name a new folder, or an empty one")


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder beside `out` which takes its name when the body has ended well, and else is deleted."""
    folder = out.parent / f".{out.name}.importing-{secrets.token_hex(4)}"
    try:
        yield folder
        _refuse_occupied(out)
        folder.rename(out)  # of an empty folder it takes the place
    finally:
        shutil.rmtree(folder, ignore_errors=True)
