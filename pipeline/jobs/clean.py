"""Deletes what is provably lost: attempts at parts of which a commit names another attempt, and probes.

A probe was written to see whether it can be, at the birth of a store or by `vqtok check`. Whoever wrote it deletes it
again; what is still there was left by a process that was killed.

An attempt without a commit of its part may be about to be committed by somebody who was only slow, so it
stays, however old it is and whoever held its claim.
"""

import time
from dataclasses import asdict, dataclass, field

from pipeline.config import Config
from pipeline.errors import CorruptStore
from pipeline.files import Files, LocalFiles, files_at
from pipeline.files.regular import link_on_the_way
from pipeline.printing import one_line
from pipeline.records import JSON
from pipeline.store.schema import names
from pipeline.store.schema.birth import is_born, read_birth
from pipeline.store.schema.commits import committed_parts, read_commit
from pipeline.store.schema.manifest import read_manifest
from pipeline.store.writing.writer import delete_attempt

_MOMENT_SECONDS = 1.0


@dataclass
class Sweep:
    """What was deleted, and what had to stay."""

    store: str
    deleted: list[str] = field(default_factory=list)
    """Attempts, as `part.attempt`."""
    bytes: int = 0
    """Size of what was deleted."""
    probes: list[str] = field(default_factory=list)
    """Probes that were deleted, files and folders."""
    kept: list[str] = field(default_factory=list)
    """Attempts at parts that are not committed yet."""
    damaged: list[str] = field(default_factory=list)
    """Commit records that cannot be read, and folders of the store that are links, a message for each: of what they
    speak of or lead to, nothing was deleted."""

    def to_json(self) -> JSON:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.store}: {len(self.deleted)} lost attempts deleted, {self.bytes:,} bytes"]
        if self.probes:
            lines.append(f"{len(self.probes)} probes deleted")
        if self.kept:
            lines.append(f"{len(self.kept)} attempts at pending parts stay; they can go once their parts are committed")
        return "\n".join([*lines, *(f"damaged: {one_line(message)}" for message in self.damaged)])


def run(config: Config) -> Sweep:
    """Sweep the store of a configuration; safe while jobs are running.

    Raises StoreError where there is neither a store nor a probe, CorruptStore for a damaged manifest: readers may use
    any attempt then.
    """
    files = files_at(config.tokenize.store, config.tokenize.storage)
    sweep = Sweep(files.root, probes=_delete_probes(files))
    if sweep.probes and not is_born(files):
        return sweep
    birth = read_birth(files)
    committed = committed_parts(files)
    manifest = read_manifest(files, birth)
    # Readers go by the manifest; it is never older than a commit unless somebody deleted that.
    in_use = {names.attempt(part.part, part.attempt) for part in manifest.parts} if manifest else set()
    for name in _attempts(files, sweep):
        part, _, attempt = name.rpartition(".")
        if part not in committed:
            sweep.kept.append(name)
            continue
        try:
            is_lost = read_commit(files, part).attempt != attempt and name not in in_use
        except CorruptStore as error:
            if str(error) not in sweep.damaged:
                sweep.damaged.append(str(error))
            continue
        if is_lost:
            sweep.bytes += _size(files, name)
            delete_attempt(files, part, attempt)
            sweep.deleted.append(name)
    return sweep


def _delete_probes(files: Files) -> list[str]:
    """Delete what was only written to see whether it can be; names, sorted.

    Jobs that begin write such, too, and have it no longer than a moment.
    """
    left = _probes(files)
    if left:
        time.sleep(_MOMENT_SECONDS)
        left &= _probes(files)
    folders = left.intersection(files.folders(""))
    for name in left:
        (files.delete_folder if name in folders else files.delete)(name)
    return sorted(left)


def _probes(files: Files) -> set[str]:
    return set(filter(names.is_probe, [*files.folders(""), *files.names("")]))


def _attempts(files: Files, sweep: Sweep) -> list[str]:
    """Every attempt that left anything behind, as `part.attempt`, sorted. What this package did not name is none."""
    found: set[str] = set()
    for place, listing in ((names.PARTS, files.folders), (names.STAGING, files.folders), (names.REJECTS, files.list)):
        if isinstance(files, LocalFiles) and (link := link_on_the_way(files.root, place)):
            sweep.damaged.append(f"{link}: a link; nothing that it leads to is deleted")
        else:
            found.update(name.removesuffix(".jsonl") for name in listing(place))
    return sorted(filter(names.is_attempt, found))


def _size(files: Files, name: str) -> int:
    return sum(stat.bytes for place in (names.PARTS, names.STAGING) for stat in files.stats(f"{place}/{name}").values())
