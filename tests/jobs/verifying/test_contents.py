"""`vqtok verify`: what only reading everything betrays is found, and the file is named."""

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from damage import (
    CHUNK,
    PART,
    SHARD,
    commit_in_its_place,
    flip,
    inside,
    recommit,
    rewrite,
    verified,
    with_other_tokens,
)
from fixtures_store import COLLECTION, Job, write_shard

from pipeline.store.writing.writer import EncodedShard

pytest_plugins = ["fixtures_store"]


def replace_image(job: Job) -> None:
    """Another image of the same length: tars are not trusted for their size."""
    path = job.source / SHARD
    flip(path, 512 + 200)


def replace_key(job: Job) -> None:
    samples = COLLECTION[SHARD]
    write_shard(job.source / SHARD, [("grau", samples[0][1]), *samples[1:]])


FULL: dict[str, tuple[Callable[[Job], object], str]] = {
    "flipped token": (
        lambda job: flip(inside(job, CHUNK), 5),
        r"/tokens/c/0/0: the checksum is not that of the commit",
    ),
    "flipped metadata": (
        lambda job: flip(inside(job, "tokens.zarr/parts/PART/zarr.json"), 3),
        rf"parts/{PART}\.\w+/zarr\.json: the checksum",
    ),
    "flipped reject": (lambda job: flip(inside(job, "rejects/PART"), 10), rf"rejects/{PART}\.\w+\.jsonl: the checksum"),
    "one more written": (
        lambda job: recommit(job, seen=18, written=11),
        r"/tokens: cannot be read: its zarr\.json is not as the records",
    ),
    "one less written": (
        lambda job: recommit(job, seen=16, written=9),
        r"/tokens: cannot be read: its zarr\.json is not as the records",
    ),
    "one more rejected": (
        lambda job: recommit(job, seen=18, rejected=8),
        rf"commits/{PART}\.json: 8 rejected, but there are 7",
    ),
    "other labels": (
        lambda job: recommit(job, unlabelled=0),
        rf"commits/{PART}\.json: 0 unlabelled, but there are 1",
    ),
    "other missing fields": (
        lambda job: recommit(job, missing={"txt": 1}),
        rf"commits/{PART}\.json: missing fields {{'txt': 1}}, but it is {{'txt': 10}}",
    ),
    "other code counts": (
        lambda job: recommit(job, code_counts=packed([240] + [0] * 15)),
        rf"commits/{PART}\.json: the tokens are not as often",
    ),
    "code counts of fewer codes": (
        lambda job: recommit(job, code_counts=packed([240])),
        rf"commits/{PART}\.json: 1 code counts for 16 codes",
    ),
    "code counts that are none": (
        lambda job: recommit(job, code_counts="many"),
        rf"commits/{PART}\.json: the code counts cannot be read",
    ),
    "other content digest": (
        lambda job: recommit(job, content_digest="0" * 64),
        rf"commits/{PART}\.json: the arrays are not those of the commit \(content digest\)",
    ),
    "other image in the source": (replace_image, rf"{SHARD}: not the source shard that was tokenized \(sha256\)"),
    "other key in the source": (replace_key, rf"{SHARD}: not the source shard that was tokenized \(sha256\)"),
}
"""Damages that only reading everything betrays."""


def packed(counts: list[int]) -> str:
    return base64.b64encode(zlib.compress(np.array(counts, "<i8").tobytes())).decode()


@pytest.mark.parametrize("damage", FULL)
def test_a_full_check_finds(damageable: Job, damage: str) -> None:
    inflict, message = FULL[damage]
    inflict(damageable)
    assert verified(damageable, quick=True).problems == []
    full = verified(damageable)
    assert [problem for problem in full.problems if re.search(message, problem)], full.problems
    assert len(full.problems) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: replace(shard, keys=shard.keys[::-1]), rf"{SHARD}: keys differ from sample 0 on"),
        (
            lambda shard: replace(shard, rejects=shard.rejects[:-1]),  # a sample that nobody accounts for
            rf"{SHARD}: keys differ from sample 15 on: source \['bad-label'\]",
        ),
        (
            lambda shard: replace(shard, rejects=[*shard.rejects, shard.rejects[0].model_copy(update={"index": 0})]),
            rf"{SHARD}: keys differ from sample 0 on",
        ),
        (
            lambda shard: replace(shard, keys=[*shard.keys[:-1], "invented"]),
            rf"{SHARD}: keys differ from sample 16 on: source \['last'\]",
        ),
        (with_other_tokens, rf"{SHARD}: 10 of 10 rows differ when encoded again, though in the way"),
    ],
    ids=["order", "lost reject", "doubled sample", "other key", "other tokens"],
)
def test_a_sound_part_of_the_wrong_contents_is_found(
    damageable: Job, change: Callable[[EncodedShard], EncodedShard], message: str
) -> None:
    commit_in_its_place(damageable, SHARD, change)
    assert verified(damageable, quick=True).problems == []
    problems = verified(damageable, rate=1).problems
    assert [problem for problem in problems if re.search(message, problem)], problems


def test_tokens_outside_the_codebook_are_found(damageable: Job) -> None:
    birth = damageable.store / "store.json"
    rewrite(birth, codebook=json.loads(birth.read_text())["codebook"] | {"vocab_size": 3})
    problems = verified(damageable).problems
    assert [problem for problem in problems if re.search(r"token 1\d is outside the codebook", problem)], problems
