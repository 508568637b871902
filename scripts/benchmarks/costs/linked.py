"""A store of very many rows that takes the room of a few parts: the others are hard links to their files."""

import os
from pathlib import Path

import numpy as np
from loaders.rows import VOCAB
from loaders.vqtok import begin_store, commit_rows, finish_store

from pipeline.files import LocalFiles
from pipeline.store.schema import names
from pipeline.store.schema.commits import CommitRecord, publish, read_commit

# ext4 allows a file 65,000 names, XFS and Btrfs with room for them more.
_MOST_LINKS = 32_000


def write_linked_store(folder: Path, parts: int, rows: int, tokens: int) -> None:
    """A finished store of `parts` parts of `rows` rows of `tokens` tokens.

    The first part is written, and the last one, whose keys no other has (`key_of`); those between them are the first
    one under other names. Nothing is synced to the disk.
    """
    birth, files, random = begin_store(folder, tokens), LocalFiles(folder), np.random.default_rng(0)

    def write(number: int) -> CommitRecord:
        commit_rows(folder, birth, number, random.integers(0, VOCAB, (rows, tokens), np.uint16))
        return read_commit(files, _name(number))

    sync, os.fsync = os.fsync, lambda fd: None  # the store is thrown away
    try:
        original = write(0)
        for number in range(1, parts - 1):
            if number % _MOST_LINKS:
                _commit_links(files, original, _name(number))
            else:
                original = write(number)
        if parts > 1:
            write(parts - 1)
        finish_store(folder, birth)
    finally:
        os.fsync = sync


def key_of(part: int, row: int) -> str:
    """The key of a row of a part that was written."""
    return f"{part:06d}-{row:06d}"


def _name(part: int) -> str:
    return f"part-{part:06d}"


def _commit_links(files: LocalFiles, original: CommitRecord, part: str) -> None:
    """Commit the files of a part under the name of another one."""
    root = Path(files.root)
    source, target = (root / names.PARTS / names.attempt(name, original.attempt) for name in (original.part, part))
    for folder, _, found in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir()
        for file in found:
            os.link(Path(folder) / file, there / file)
    if original.rejected:
        os.link(*(root / names.rejects(name, original.attempt) for name in (original.part, part)))
    sources = tuple(record.model_copy(update={"path": f"{part}.tar"}) for record in original.sources)
    record = original.model_copy(update={"part": part, "sources": sources})
    publish(files, record)
