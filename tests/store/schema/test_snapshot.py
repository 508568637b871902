"""Manifests are functions of the commits: equal commits, equal bytes."""

import hashlib
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import begin_store, finish_store, make_birth, make_shard, store_of_rows

from pipeline.errors import CorruptStore, StoreError
from pipeline.store import TokenStore
from pipeline.store.schema.commits import CommitRecord
from pipeline.store.schema.counts import unpack_counts
from pipeline.store.schema.digest import store_digest
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.writer import commit_part


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> list[CommitRecord]:
    birth = make_birth()
    files = begin_store(tmp_path_factory.mktemp("snapshot") / "store", birth)
    return [commit_part(files, birth, make_shard(birth, f"p{number}", number, rejects=1)) for number in range(5)]


def test_the_order_of_commits_makes_no_difference(commits: list[CommitRecord]) -> None:
    planned = [commit.part for commit in commits]
    shuffled = random.Random(0).sample(commits, len(commits))
    assert [commit.part for commit in shuffled] != planned
    expected = make_manifest(commits, planned, 16, 3).to_json()
    assert make_manifest(shuffled, planned[::-1], 16, 3).to_json() == expected


def test_sums_are_those_of_the_commits(commits: list[CommitRecord]) -> None:
    manifest = make_manifest(commits, [], 16, 1)
    assert (manifest.written, manifest.rejected) == (10, 5)
    assert [part.part for part in manifest.parts] == sorted(commit.part for commit in commits)
    birth = make_birth()
    tokens = np.concatenate([make_shard(birth, f"p{number}", number).tokens for number in range(5)])
    assert (
        unpack_counts(manifest.code_counts, 16, "manifest.json").tolist()
        == np.bincount(tokens.reshape(-1), minlength=16).tolist()
    )


def test_a_commit_with_damaged_counts_is_named(commits: list[CommitRecord]) -> None:
    damaged = commits[2].model_copy(update={"code_counts": "?"})
    with pytest.raises(CorruptStore, match=r"commits/p2\.json: the code counts cannot be read"):
        make_manifest([commits[0], damaged], [], 16, 1)


def test_the_digest_of_a_store_is_that_of_sorted_lines() -> None:
    expected = hashlib.sha256(b"a 11\nb 22\n").hexdigest()
    assert store_digest([("b", "22"), ("a", "11")]) == expected
    assert store_digest([]) == hashlib.sha256().hexdigest()


def test_a_store_of_nothing_has_a_manifest() -> None:
    manifest = make_manifest([], [], 16, 1)
    assert (manifest.written, manifest.parts) == (0, ())
    assert not unpack_counts(manifest.code_counts, 16, "manifest.json").any()


def test_a_store_that_has_grown_can_be_read_as_it_was(tmp_path: Path) -> None:
    birth = make_birth(codec="raw")
    files = begin_store(tmp_path, birth)
    digests, keys = [], []
    for generation, parts in enumerate([["m", "x"], ["a"], [], ["n", "z"]], start=1):
        for part in parts:
            commit_part(files, birth, make_shard(birth, part, 5))
        finish_store(files, birth, generation)
        store = TokenStore(tmp_path)
        digests.append(store.content_digest)
        keys.append(list(store.keys))
    assert digests[1] == digests[2]
    assert [snapshot.generation for snapshot in TokenStore(tmp_path).manifest.earlier] == [1, 2, 3]
    for digest, expected in zip(digests, keys, strict=True):
        store = TokenStore(tmp_path, content_digest=digest)
        assert (list(store.keys), store.content_digest, len(store)) == (expected, digest, len(expected))
        assert store.manifest.written == len(expected)
        assert unpack_counts(store.manifest.code_counts, 16, "").sum() == 8 * len(expected)
        assert list(pickle.loads(pickle.dumps(store)).keys) == expected


def test_a_digest_that_a_store_never_had_is_refused(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [3]))
    with pytest.raises(StoreError, match=f"never had the content digest 1234; it has had {store.content_digest[:12]}"):
        TokenStore(tmp_path, content_digest="1234")
