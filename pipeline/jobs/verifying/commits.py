"""Checks a store against its configuration, quickly: commits, sizes, manifest. Neither torch nor Zarr."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from pipeline.config import Config, SourceConfig
from pipeline.errors import VqtokError
from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.jobs.plan import make_plan, plan_without_source, refuse_other_identity, with_late_commits
from pipeline.printing import one_line
from pipeline.records import JSON, SourceShard
from pipeline.source.reading import difference
from pipeline.store.arrays.codebook import check_codebook
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth, read_birth
from pipeline.store.schema.commits import CommitRecord, read_commit
from pipeline.store.schema.groups import check_groups
from pipeline.store.schema.manifest import PartRecord, is_current, lost_parts, lost_records, read_manifest, unlike
from pipeline.store.schema.sizes import check_file, check_folder

_NO_DIGESTS = (
    "the store was begun before there were digests in its records: a quick check cannot tell edits of store.json, "
    "manifest.json and commits/, and no check tells a codebook record or a source list that was edited with care"
)


@dataclass
class Verification:
    """What was checked, and every loss found."""

    level: str = "quick"
    """`quick`: commits and sizes; `full`: also every key, checksum and token."""
    samples: int = 0
    rejected: int = 0
    rows_encoded_again: int = 0
    rows_that_differ: int = 0
    token_agreement: float | None = None
    """Share of the tokens encoded again that are equal; None where none were."""
    content_digest: str | None = None
    """Of the manifest; None before the first completion."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    commits: dict[str, CommitRecord] = field(default_factory=dict, repr=False)
    """Commit records that could be read, by part."""

    def to_json(self) -> JSON:
        """The result without the records."""
        return {**asdict(replace(self, commits={})), "commits": len(self.commits)}

    def __str__(self) -> str:
        parts = "1 part" if len(self.commits) == 1 else f"{len(self.commits):,} parts"
        lines = [f"{parts}, {self.samples:,} samples written, {self.rejected:,} rejected"]
        if self.token_agreement is not None:
            lines.append(
                f"{self.rows_encoded_again:,} rows encoded again, {self.rows_that_differ:,} differ; "
                f"{percent(self.token_agreement)} of their tokens agree"
            )
        lines += [f"warning: {one_line(warning)}" for warning in self.warnings]
        lines += [f"problem: {one_line(problem)}" for problem in self.problems]
        if self.content_digest:
            lines.append(f"content digest {self.content_digest}")
        lines.append(f"{len(self.problems)} problems" if self.problems else f"ok ({self.level} check)")
        return "\n".join(lines)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Turn an error of one check into a problem, so that the next check is made all the same."""
        try:
            yield
        except (OSError, VqtokError) as error:
            if str(error) not in self.problems:  # a full check meets what the quick one has found
                self.problems.append(str(error))


def percent(share: float) -> str:
    """A share as text; 100% for all and nothing less."""
    return f"{100 if share == 1 else min(round(100 * share, 4), 99.9999):g}%"


def check_commits(config: Config, with_source: bool = True, entity_tags: bool = True) -> Verification:
    """Compare commits, sizes and manifest with the configuration; the problems are collected.

    Args:
        with_source: else the store alone is checked, and neither source nor tokenizer need be there.
        entity_tags: compare those of the store's files, as is right where their contents will not be.

    Raises StoreError where there is no store, ConfigError for a bad configuration.
    """
    plan = with_late_commits(make_plan(config)) if with_source else plan_without_source(config)
    birth = read_birth(plan.store)  # no store at all is an error and not a finding
    result = Verification()
    others = sorted(plan.committed - plan.planned)
    if with_source:
        result.warnings += [
            f"{part}: committed, but of no source shard of this configuration: checked without its source, and readers "
            "read it"
            for part in others
        ]
        with result.collecting():
            refuse_other_identity(plan.store, config)
    known: dict[str, PartRecord] = {}
    lost: list[str] = []
    with result.collecting():
        manifest = read_manifest(plan.store, birth)
        if lost := lost_parts(plan.store, manifest, plan.committed):
            result.problems.append(str(lost_records(plan.store, lost)))
        elif not plan.pending and not is_current(manifest, plan.committed, plan.planned if with_source else None):
            result.problems.append(f"{names.MANIFEST} is not up to date; run vqtok tokenize again")
        result.content_digest = manifest.content_digest if manifest else None
        known = {record.part: record for record in manifest.parts} if manifest else {}
    pending = [shard.path for shard in plan.pending if shard.part not in lost]
    result.problems += [f"{path}: not committed; run vqtok tokenize again" for path in pending]
    with result.collecting():
        check_codebook(plan.store, birth)
    with result.collecting():
        check_groups(plan.store, birth)
    result.problems += plan.listings.problems(plan.committed)
    if not birth.has_digests:
        result.warnings.append(_NO_DIGESTS)
    for shard in plan.shards:
        if shard.part in plan.committed:
            with result.collecting():
                commit = _read_part(plan.store, shard.part, result)
                _check_source(shard, config.source, commit, result)
                _check_part(plan.store, birth, commit, known.get(shard.part), entity_tags)
    for part in others:
        with result.collecting():
            _check_part(plan.store, birth, _read_part(plan.store, part, result), known.get(part), entity_tags)
    return result


def _read_part(store: Files, part: str, result: Verification) -> CommitRecord:
    """The commit record of a part, counted in the result."""
    commit = read_commit(store, part)
    result.commits[part] = commit
    result.samples += commit.written
    result.rejected += commit.rejected
    if commit.seen != commit.written + commit.rejected:
        result.problems.append(
            f"{names.commit(part)}: {commit.seen} seen, {commit.written} written, {commit.rejected} rejected"
        )
    return commit


def _check_part(store: Files, birth: Birth, commit: CommitRecord, known: PartRecord | None, entity_tags: bool) -> None:
    """All files must be there with their sizes, a commit have its digests, and the manifest say what it says."""
    check_folder(store, f"{names.PARTS}/{names.attempt(commit.part, commit.attempt)}", commit.files, entity_tags)
    if commit.rejects.bytes:
        check_file(store, names.REJECTS, commit.rejects, entity_tags)
    path = names.commit(commit.part)
    if birth.has_digests and not commit.has_digests:
        raise damaged(store, path, f"without the digests that every record of this store has ({names.STORE})")
    if known is not None and known != PartRecord.of(commit, known.since):
        raise damaged(store, names.MANIFEST, unlike(path))


def _check_source(shard: SourceShard, source: SourceConfig, commit: CommitRecord, result: Verification) -> None:
    """A source shard must be what it was when it was committed, as far as can be told without reading it."""
    if shard.listing is None and shard.bytes is not None and commit.sources[0].bytes != shard.bytes:
        result.problems.append(
            f"{shard.path}: {shard.bytes:,} bytes, {commit.sources[0].bytes:,} when it was committed: it was replaced"
        )
    if shard.listing is not None and (reason := difference(shard, source, commit.sources[0], check_files=True)):
        result.problems.append(f"{shard.path}: {reason}")
