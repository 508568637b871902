"""Checks what a store holds against its source: every key, checksum and token.

Needs Zarr but not torch: a store can be checked on any machine that sees it and its source.
"""

import numpy as np
from tqdm import tqdm

from pipeline.config import Config
from pipeline.errors import CorruptStore
from pipeline.files import Files, files_at
from pipeline.files.damage import damaged
from pipeline.jobs.plan import source_shards_of
from pipeline.jobs.rejects import read_rejects
from pipeline.jobs.verifying.commits import Verification
from pipeline.records import NO_LABEL, Reject, SourceShard
from pipeline.source.reading import open_shard
from pipeline.store.arrays.codebook import check_codebook
from pipeline.store.arrays.parts import Part
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth, read_birth
from pipeline.store.schema.commits import CommitRecord, read_commits
from pipeline.store.schema.counts import unpack_counts
from pipeline.store.schema.groups import check_groups
from pipeline.store.schema.manifest import Manifest, PartRecord, read_manifest
from pipeline.store.schema.sizes import check_checksums
from pipeline.store.schema.snapshot import as_it_was, make_manifest
from pipeline.store.writing.hierarchy import check_root, check_rule


def check_contents(config: Config, result: Verification, show_progress: bool = True, with_source: bool = True) -> None:
    """Read every committed part, and its source shard where the configuration names it; add what is wrong to `result`.

    Args:
        with_source: else the store alone is read.
    """
    result.level = "full"
    store = files_at(config.tokenize.store, config.tokenize.storage)
    birth = read_birth(store)
    with result.collecting():
        check_codebook(store, birth)
    with result.collecting():
        check_groups(store, birth)
        check_root(store, birth)
    with result.collecting():
        check_rule(store, birth)
    shards = {shard.part: shard for shard in source_shards_of(store, config)} if with_source else {}
    for name, commit in tqdm(result.commits.items(), "verify", unit=" parts", disable=not show_progress):
        with result.collecting():
            part, rejects = _check_part(store, birth, commit)
            if name in shards:
                _check_keys(config, shards[name], part, rejects, commit, result)
    if not result.problems:  # damaged parts would only be reported twice
        with result.collecting():
            _check_manifest(store, birth)


def _check_manifest(store: Files, birth: Birth) -> None:
    """The manifest must be what its commits make it."""
    manifest = read_manifest(store, birth)
    assert manifest is not None, "check_commits reports a missing one"
    commits = read_commits(store, [part.part for part in manifest.parts])
    expected = make_manifest(commits, manifest.planned, birth.codebook.vocab_size, manifest.generation, manifest)
    wrong = [name for name in Manifest.model_fields if getattr(manifest, name) != getattr(expected, name)]
    if wrong:
        raise damaged(
            store,
            names.MANIFEST,
            f"{', '.join(wrong)} not as the commit records say; delete it and run vqtok tokenize again",
        )
    for snapshot in manifest.earlier:
        as_it_was(manifest, snapshot.content_digest, store.root)


def _check_part(store: Files, birth: Birth, commit: CommitRecord) -> tuple[Part, list[Reject]]:
    """All that a part can tell without its source."""
    check_checksums(store, f"{names.PARTS}/{names.attempt(commit.part, commit.attempt)}", commit.files)
    if commit.rejects.bytes:
        check_checksums(store, names.REJECTS, [commit.rejects])
    part = Part(store, birth, PartRecord.of(commit, since=0))
    rejects = read_rejects(store, commit)
    _check_counts(birth, part, rejects, commit)
    _check_missing(birth, part, commit)
    if birth.views is not None:
        _check_views(birth, part, commit)
    if part.digest() != commit.content_digest:
        raise damaged(store, names.commit(commit.part), "the arrays are not those of the commit (content digest)")
    return part, rejects


def _check_counts(birth: Birth, part: Part, rejects: list[Reject], commit: CommitRecord) -> None:
    """All that the commit counts: rows, rejects, labels, codes."""
    path, tokens, vocab_size = names.commit(commit.part), part.tokens(), birth.codebook.vocab_size
    found = {"written": len(tokens), "rejected": len(rejects), "unlabelled": int((part.labels == NO_LABEL).sum())}
    for name, count in found.items():
        if getattr(commit, name) != count:
            raise CorruptStore(f"{path}: {getattr(commit, name)} {name}, but there are {count}")
    if tokens.size and tokens.max() >= vocab_size:
        raise CorruptStore(f"{commit.part}: token {tokens.max()} is outside the codebook")
    counts = np.bincount(tokens.reshape(-1), minlength=vocab_size)
    if not np.array_equal(counts, unpack_counts(commit.code_counts, vocab_size, path)):
        raise CorruptStore(f"{path}: the tokens are not as often as its code counts say")


def _check_missing(birth: Birth, part: Part, commit: CommitRecord) -> None:
    """Rows without a kept field. Commits of before the count say nothing at all."""
    found = {name: commit.written - int(part.read(f"fields/{name}/present").sum()) for name in birth.fields}
    found = {name: count for name, count in found.items() if count}
    if commit.missing and commit.missing != found:
        raise CorruptStore(f"{names.commit(commit.part)}: missing fields {commit.missing}, but it is {found}")


def _check_views(birth: Birth, part: Part, commit: CommitRecord) -> None:
    """Each view is a rectangle, mirrored or not."""
    box, flip = part.read("view/box"), part.read("view/flip")
    shape = commit.written, birth.views
    if (box.shape, flip.shape) != ((*shape, 4), shape):
        raise CorruptStore(f"{commit.part}: boxes {box.shape} and flips {flip.shape} are not those of {shape} views")
    if (box[..., :2] < 0).any() or (box[..., 2:] < 1).any() or (flip > 1).any():
        raise CorruptStore(f"{commit.part}: a view is no part of an image, or neither mirrored nor unmirrored")


def _check_keys(
    config: Config, shard: SourceShard, part: Part, rejects: list[Reject], commit: CommitRecord, result: Verification
) -> None:
    """Every key of the source shard once, in its order: either a row or a reject."""
    reader = open_shard(shard, config.source, contents=False)
    rejected = {reject.index: reject.key for reject in rejects}
    expected, unreadable = [], []
    for index, sample in enumerate(reader):
        expected.append(sample.key)
        if shard.listing is not None and sample.problems and index not in rejected:
            unreadable.append(sample.key)
    if unreadable:
        result.warnings.append(
            f"{shard.path}: files of {len(unreadable):,} samples, such as {unreadable[0]!r}, cannot be read now, as "
            "source.exclude allows; their rows stay, and the other files were compared by sizes and times"
        )
    elif [file.sha256 for file in reader.sources()] != [file.sha256 for file in commit.sources]:
        raise CorruptStore(f"{shard.path}: not the source shard that was tokenized (sha256): it was replaced")
    rows = iter(part.keys)
    found = [rejected[index] if index in rejected else next(rows, None) for index in range(len(expected))]
    if found != expected or next(rows, None) is not None:
        first = next(
            (index for index, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]),
            len(expected),
        )
        raise CorruptStore(f"{shard.path}: keys differ from sample {first} on: source {expected[first : first + 1]}")
