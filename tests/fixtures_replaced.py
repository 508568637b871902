"""Jobs that are to be run again after one of their source shards was replaced; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import os

import pytest
from fixtures_store import Job

from pipeline.source.find import part_name

SHARD = "train-0001.tar"
PART = part_name(SHARD)
OTHER_CONTENTS = "of the same size, with other contents"


@pytest.fixture
def unfinished(damageable: Job) -> Job:
    """A job that was killed before its last commit and its manifest."""
    (damageable.store / "manifest.json").unlink()
    (damageable.store / f"commits/{part_name('more/train-0000.tar')}.json").unlink()
    return damageable


@pytest.fixture(params=["finished", "unfinished"])
def resumed(request: pytest.FixtureRequest, damageable: Job) -> Job:
    """A job that is to be run again, with or without work left."""
    return damageable if request.param == "finished" else request.getfixturevalue("unfinished")  # type: ignore[no-any-return]


def replace(job: Job, position: int) -> None:
    """Flip a bit of a source shard; a second later, as a copy over it would be."""
    path = job.source / SHARD
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    modified = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(modified + 10**9, modified + 10**9))
