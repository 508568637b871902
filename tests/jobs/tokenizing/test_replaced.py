"""Source shards that are no longer what they were: refused when a job resumes, or failed while they are read."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from damage import rewrite
from fixtures_replaced import OTHER_CONTENTS, PART, SHARD, replace
from fixtures_store import COLLECTION, Halt, Job, all_files, good_samples, make_job, vqtok, write_shard

from pipeline.errors import SourceError
from pipeline.source.shards.identity import HEAD_BYTES
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_replaced"]


def refused(job: Job) -> str:
    """The message of a run that must refuse, and must leave the store as it is."""
    before = all_files(job.store)
    done = job.start().wait()
    assert (done.status, done.out) == (1, ""), done
    assert all_files(job.store) == before
    assert done.err.startswith("vqtok: 1 source shards were replaced after they were committed: ")
    assert f"{job.source}/{SHARD}: " in done.err
    assert f"delete its record in {job.store}/commits and manifest.json" in done.err
    return done.err


def test_another_size_is_refused(resumed: Job) -> None:
    size = (resumed.source / SHARD).stat().st_size
    write_shard(resumed.source / SHARD, good_samples(100, 9))
    now = (resumed.source / SHARD).stat().st_size
    assert now != size
    assert f"{SHARD}: {now:,} bytes, {size:,} then. Restore them" in refused(resumed)


def test_the_same_size_with_another_beginning_is_refused(resumed: Job, finished: Job) -> None:
    replace(resumed, 700)
    assert f"{SHARD}: {OTHER_CONTENTS}. Restore them" in refused(resumed)
    replace(resumed, 700)
    assert resumed.run().complete
    assert resumed.digest == finished.digest


def test_the_remedy_of_the_message_works(resumed: Job) -> None:
    write_shard(resumed.source / SHARD, good_samples(700, 5))
    refused(resumed)
    (resumed.store / f"commits/{PART}.json").unlink()
    (resumed.store / "manifest.json").unlink(missing_ok=True)
    assert resumed.run().complete
    assert {"000700", "000704"} <= set(TokenStore(resumed.store).keys)
    assert "000100" not in TokenStore(resumed.store).keys


def test_only_the_first_of_many_are_named(resumed: Job) -> None:
    for number in range(4):
        write_shard(resumed.source / f"train-000{number}.tar", good_samples(500 + number, 7))
    with pytest.raises(SourceError, match=r"^4 source shards were replaced") as caught:
        resumed.run()
    assert str(caught.value).count("bytes, ") == 3


def test_a_copied_collection_of_another_time_passes(resumed: Job, finished: Job, tmp_path: Path) -> None:
    for number, path in enumerate(COLLECTION):
        os.utime(resumed.source / path, (number, number))
    assert resumed.run().complete
    moved = Path(shutil.move(resumed.source, tmp_path / "elsewhere"))
    job = make_job(resumed.file.parent, moved, resumed.tokenizer)
    done = job.start().wait()
    assert (done.status, done.err) == (0, "")
    assert job.digest == finished.digest


def test_a_record_without_a_head_is_compared_by_size(resumed: Job) -> None:
    for path in (resumed.store / f"commits/{PART}.json", resumed.store / "manifest.json"):
        if path.exists():
            tree = json.loads(path.read_text())
            for record in tree.get("parts", [tree]):
                del record["sources"][0]["head"]
            rewrite(path, **tree)
    replace(resumed, 700)
    assert resumed.run().complete


def test_what_is_not_committed_may_be_replaced(unfinished: Job) -> None:
    write_shard(unfinished.source / "more/train-0000.tar", good_samples(600, 3))
    assert unfinished.run().complete
    assert "000602" in TokenStore(unfinished.store).keys


def test_a_change_behind_the_head_is_found_by_verify(copied: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    write_shard(copied / SHARD, good_samples(100, 60))
    job = make_job(tmp_path / "job", copied, tokenizer_folder)
    assert job.run().complete
    inside_an_image = (copied / SHARD).read_bytes().index(b"\xff\xd8", HEAD_BYTES) + 300
    replace(job, inside_an_image)
    assert job.run().complete  # whole source shards are not read just to resume
    done = vqtok("verify", "--json", "--config", job.file, folder=job.output).wait()
    (problem,) = json.loads(done.out)["problems"]
    assert done.status == 1
    assert problem == f"{SHARD}: not the source shard that was tokenized (sha256): it was replaced"
    replace(job, inside_an_image)
    assert vqtok("verify", "--config", job.file, folder=job.output).wait().status == 0


@pytest.mark.parametrize("how", ["in place", "by another file"])
def test_a_tar_of_the_same_size_that_is_written_while_it_is_read_fails_alone(
    how: str, copied: Path, tokenizer_folder: Path, finished: Job, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", copied, tokenizer_folder)
    child = job.start(halt=Halt("open", SHARD, 1, signal.SIGSTOP))
    child.wait_until_stopped()
    tar = copied / SHARD
    whole, time_ns = tar.read_bytes(), tar.stat().st_mtime_ns
    if how == "in place":
        tar.write_bytes(whole)
    else:
        tar.with_suffix(".new").write_bytes(whole)
        tar.with_suffix(".new").replace(tar)
    os.utime(tar, ns=(time_ns + 10**9, time_ns + 10**9))
    child.signal(signal.SIGCONT)
    done = child.wait()
    assert (done.status, "Traceback" in done.err) == (1, False)
    assert re.search(rf"{SHARD} stays pending: .*{SHARD}: written anew since the job began; run again", done.err)
    assert job.commits.keys() == COLLECTION.keys() - {SHARD}
    assert job.listing("claims") == []
    assert job.run().complete
    assert job.listing("failures") == []
    assert job.digest == finished.digest
