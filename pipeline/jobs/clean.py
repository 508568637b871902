"""Deletes what is provably lost: attempts at parts of which a commit names another attempt.

An attempt without a commit of its part may be about to be committed by somebody who was only slow, so it
stays, however old it is and whoever held its claim.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import Config
from pipeline.files import LocalFiles, files_at
from pipeline.store import names
from pipeline.store.birth import read_birth
from pipeline.store.commits import committed_parts, read_commit
from pipeline.store.writer import delete_attempt


@dataclass
class Sweep:
    """What was deleted, and what had to stay."""

    store: str
    deleted: list[str] = field(default_factory=list)
    """Attempts, as `part.attempt`."""
    bytes: int = 0
    kept: list[str] = field(default_factory=list)
    """Attempts at parts that are not committed yet."""

    def __str__(self) -> str:
        lines = [f"{self.store}: {len(self.deleted)} lost attempts deleted, {self.bytes:,} bytes"]
        if self.kept:
            lines.append(f"{len(self.kept)} attempts at pending parts stay; they go once their parts are committed")
        return "\n".join(lines)


def run(config: Config) -> Sweep:
    """Sweep the store of a configuration; safe while jobs are running. Raises StoreError without a store."""
    files = files_at(config.tokenize.store)
    read_birth(files)
    committed = committed_parts(files)
    sweep = Sweep(files.root)
    for name in _attempts(files):
        part, _, attempt = name.rpartition(".")
        if part not in committed:
            sweep.kept.append(name)
        elif read_commit(files, part).attempt != attempt:
            sweep.bytes += _size(files, name)
            delete_attempt(files, part, attempt)
            sweep.deleted.append(name)
    return sweep


def _attempts(files: LocalFiles) -> list[str]:
    """Every attempt that left anything behind, as `part.attempt`."""
    found = {folder.name for place in (names.PARTS, names.STAGING) for folder in _folders(files.path(place))}
    found |= {name.removesuffix(".jsonl") for name in files.list(names.REJECTS)}
    return sorted(found)


def _folders(place: Path) -> list[Path]:
    return [entry for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []


def _size(files: LocalFiles, name: str) -> int:
    places = [files.path(f"{place}/{name}") for place in (names.PARTS, names.STAGING)]
    return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())
