"""Damage to stores, and what `vqtok verify` says of it; for several test modules."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fixtures_store import Job

from pipeline.files import LocalFiles
from pipeline.jobs.verifying.commits import Verification, check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.jobs.verifying.reencoding import encode_again
from pipeline.records import Reject
from pipeline.source.find import part_name
from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.storage import Views
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import read_commit, read_commits
from pipeline.store.schema.manifest import PartRecord, write_manifest
from pipeline.store.schema.seals import sealed
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.writer import EncodedShard, commit_part

SHARD = "train-0003.tar"
"""The one with rejects."""
PART = part_name(SHARD)
CHUNK = "tokens.zarr/parts/PART/tokens/c/0/0"
"""Its tokens, for `inside`."""


def verified(
    job: Job, *overrides: str, quick: bool = False, rate: float | None = None, with_source: bool = True
) -> Verification:
    config = job.config(*overrides)
    result = check_commits(config, with_source, entity_tags=quick)
    if not quick:
        check_contents(config, result, show_progress=False, with_source=with_source)
    if rate is not None:
        encode_again(config, result, rate, show_progress=False)
    return result


def flip(path: Path, position: int = -1) -> None:
    """Damage one bit, leaving size and time as they are."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, **changes: object) -> None:
    """Write a record with other values, and with a digest of itself: what a writer with a defect would leave."""
    tree = json.loads(path.read_text()) | changes
    del tree["sha256"]
    path.write_bytes(sealed((json.dumps(tree, indent=1) + "\n").encode()))


def recommit(job: Job, **changes: object) -> None:
    """The same with a commit and the manifest that follows from it."""
    rewrite(commit_of(job), **changes)
    files = LocalFiles(job.store)
    manifest = json.loads(files.read("manifest.json"))
    for record in manifest["parts"]:
        if record["part"] == PART:
            record |= {name: value for name, value in changes.items() if name in record}
    lines = sorted(f"{record['part']} {record['content_digest']}\n" for record in manifest["parts"])
    rewrite(
        job.store / "manifest.json",
        parts=manifest["parts"],
        written=sum(record["written"] for record in manifest["parts"]),
        rejected=sum(record["rejected"] for record in manifest["parts"]),
        content_digest=hashlib.sha256("".join(lines).encode()).hexdigest(),
    )


def edit(path: Path, old: str, new: str) -> None:
    """Change a few characters of a record by hand."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def manifest_parts(job: Job) -> list[object]:
    return list(json.loads((job.store / "manifest.json").read_text())["parts"])


def inside(job: Job, pattern: str) -> Path:
    """A file of the part, or of its rejects."""
    (path,) = job.store.glob(pattern.replace("PART", f"{PART}.*"))
    return path


def commit_of(job: Job) -> Path:
    return job.store / f"commits/{PART}.json"


def commit_in_its_place(job: Job, path: str, change: Callable[[EncodedShard], EncodedShard]) -> None:
    """A sound part of other contents: what a writer with a defect would leave."""
    files = LocalFiles(job.store)
    birth, old = read_birth(files), read_commit(files, part_name(path))
    part = Part(files, birth, PartRecord.of(old, since=0))
    lines = (job.store / "rejects" / old.rejects.path).read_text().splitlines()
    shard = EncodedShard(
        part=old.part,
        sources=old.sources,
        tokens=part.tokens(),
        keys=part.keys,
        labels=part.labels.tolist(),
        fields={"txt": part.field("txt")},
        rejects=[Reject.model_validate_json(line) for line in lines],
        ignored=[],
        execution=old.execution,
        seconds={},
        views=None if birth.views is None else Views(part.read("view/box"), part.read("view/flip")),
    )
    (job.store / f"commits/{old.part}.json").unlink()
    commit_part(files, birth, change(shard))
    parts = sorted(name.removesuffix(".json") for name in files.list("commits"))
    write_manifest(files, birth, make_manifest(read_commits(files, parts), parts, 16, 2))


def with_other_tokens(shard: EncodedShard) -> EncodedShard:
    tokens = shard.tokens.copy()
    tokens[:, 0] = (tokens[:, 0] + 1) % 16
    return replace(shard, tokens=tokens)
