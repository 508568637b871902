"""`vqtok clean`: what is provably lost goes, and nothing else."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import rewrite
from fixtures_s3 import S3
from fixtures_store import COLLECTION, ROWS, Halt, Job, all_files, make_job, vqtok
from support import sampled

from pipeline.errors import StoreError
from pipeline.files import files_at
from pipeline.jobs import clean
from pipeline.jobs.verifying.commits import check_commits
from pipeline.source.find import part_name
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_s3"]

PART = part_name("train-0003.tar")
"""The one with rejects."""


def cleaned(job: Job, **options: Any) -> dict[str, Any]:
    """What `vqtok clean --json` says."""
    done = vqtok("clean", "--json", "--config", job.file, folder=job.output, **options).wait()
    assert (done.status, done.err) == (0, "")
    result: dict[str, Any] = json.loads(done.out)
    return result


def lose(store: Path, attempt: str, part: str = PART) -> list[Path]:
    """Another attempt at a committed part: its group, one in staging, its rejects."""
    committed = json.loads((store / f"commits/{part}.json").read_text())["attempt"]
    group = store / f"tokens.zarr/parts/{part}.{committed}"
    lost = [
        Path(shutil.copytree(group, store / f"tokens.zarr/parts/{part}.{attempt}")),
        Path(shutil.copytree(group, store / f"staging/{part}.{attempt}")),
        store / f"rejects/{part}.{attempt}.jsonl",
    ]
    lost[-1].parent.mkdir(exist_ok=True)
    lost[-1].write_text("")
    return lost


def test_lost_attempts_are_deleted_wherever_they_left_something(damageable: Job) -> None:
    before = all_files(damageable.store)
    first, second, third = (lose(damageable.store, attempt) for attempt in ("11111111", "22222222", "33333333"))
    size = sum(len(data) for path, data in all_files(damageable.store).items() if path not in before)
    kept_of_each = [first[0], second[1], third[2]]
    for path in {*first, *second, *third} - set(kept_of_each):
        size -= sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    size -= third[2].stat().st_size  # the report counts groups alone

    result = cleaned(damageable)
    assert result == {
        "store": str(damageable.store),
        "deleted": [f"{PART}.11111111", f"{PART}.22222222", f"{PART}.33333333"],
        "bytes": size,
        "kept": [],
        "damaged": [],
        "probes": [],
    }
    assert all_files(damageable.store) == before
    assert damageable.listing("staging") == []
    assert cleaned(damageable)["deleted"] == []
    assert check_commits(damageable.config()).problems == []


def test_attempts_of_the_killed_go_when_others_have_finished(job: Job, finished: Job) -> None:
    """Killed with a group in staging, with a group in place, and right before the commit."""
    for halt in (Halt("os.rename", "/staging/"), Halt("os.rename", "/rejects/"), Halt("os.link", "/commits/")):
        assert job.start(halt=halt).wait().status == -signal.SIGKILL
    there = {*job.listing("staging"), *job.listing("tokens.zarr/parts")} - {"zarr.json"}
    left = there - {f"{record['part']}.{record['attempt']}" for record in job.commits.values()}
    assert len(left) == 3
    result = cleaned(job)
    assert (result["deleted"], set(result["kept"])) == ([], left)  # somebody slow may still commit them
    assert {*job.listing("staging"), *job.listing("tokens.zarr/parts")} - {"zarr.json"} == there

    assert job.run().complete
    done = vqtok("clean", "--config", job.file, folder=job.output).wait()
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{job.store}: 3 lost attempts deleted, ")
    assert job.listing("staging") == []
    assert len(job.listing("tokens.zarr/parts")) == len(COLLECTION) + 1
    with_rejects = [record for record in job.commits.values() if record["rejected"]]
    assert len(files_at(str(job.store)).list("rejects")) == len(with_rejects)  # but for a temporary file of the killed
    assert job.digest == finished.digest
    verified = vqtok("verify", "--config", job.file, folder=job.output).wait()
    assert (verified.status, verified.err) == (0, "")


def test_it_is_safe_beside_a_job_that_is_about_to_commit(job: Job, finished: Job) -> None:
    slow = job.start(halt=Halt("os.link", "/commits/", 2, signal.SIGSTOP))
    slow.wait_until_stopped()
    assert job.run("tokenize.claim_timeout=0.5", "source.exclude=more/*").planned == 4
    (job.store / "manifest.json").unlink()  # as if this run had been interrupted before its end
    result = cleaned(job)
    assert set(job.commits) >= {path for path in COLLECTION if not path.startswith("more/")}
    assert all(name.rpartition(".")[0] not in committed_parts(job) for name in result["kept"])
    slow.signal(signal.SIGCONT)
    assert slow.wait().status == 0
    assert cleaned(job)["kept"] == []
    assert job.digest == finished.digest
    assert len(TokenStore(job.store)) == ROWS
    assert len(job.listing("tokens.zarr/parts")) == len(COLLECTION) + 1


def committed_parts(job: Job) -> set[str]:
    return {name.removesuffix(".json") for name in job.listing("commits")}


def test_sweeping_again_and_again_disturbs_no_running_job(job: Job, finished: Job) -> None:
    slow = job.start(halt=Halt("os.link", "/commits/", 1, signal.SIGSTOP))
    slow.wait_until_stopped()
    children = [slow, job.start()]  # the second one ends after the first
    sweeps = 0
    while any(child.running for child in children):
        clean.run(job.config())
        sweeps += 1
        if sweeps == 2:
            slow.signal(signal.SIGCONT)
    assert [child.wait().status for child in children] == [0, 0]
    assert sweeps > 1
    assert job.digest == finished.digest
    assert check_commits(job.config()).problems == []


def test_what_the_manifest_names_stays(damageable: Job) -> None:
    """A commit that was deleted and made anew names another attempt than the manifest that readers go by."""
    record = damageable.store / f"commits/{PART}.json"
    before = json.loads(record.read_text())["attempt"]
    lose(damageable.store, "99999999")
    rewrite(record, attempt="99999999")
    assert cleaned(damageable)["deleted"] == []
    assert len(TokenStore(damageable.store).read(slice(None))) == ROWS
    (damageable.store / "manifest.json").unlink()
    assert damageable.run().complete
    assert cleaned(damageable)["deleted"] == [f"{PART}.{before}"]
    assert len(TokenStore(damageable.store).read(slice(None))) == ROWS


def test_a_damaged_commit_keeps_its_attempts_and_hides_no_other(damageable: Job) -> None:
    other = part_name("train-0000.tar")
    lose(damageable.store, "11111111")
    lose(damageable.store, "11111111", other)
    path = damageable.store / f"commits/{PART}.json"
    path.write_text("{")
    done = vqtok("clean", "--json", "--config", damageable.file, folder=damageable.output).wait()
    result = json.loads(done.out)
    assert (done.status, result["deleted"]) == (1, [f"{other}.11111111"])
    assert [message.partition(": ")[0] for message in result["damaged"]] == [str(path)]
    assert list(damageable.store.glob(f"tokens.zarr/parts/{PART}.11111111"))


def test_committed_parts_of_another_configuration_stay(damageable: Job) -> None:
    before = all_files(damageable.store)
    result = clean.run(damageable.config("source.exclude=more/*"))
    assert (result.deleted, result.kept) == ([], [])
    assert all_files(damageable.store) == before


PRECIOUS = ("project.old", ".ssh", f"{PART}.11111111", "notes.v1.jsonl", f"{PART}.11111111.jsonl")
"""Names of what lies elsewhere, some as this package would give them."""


@pytest.mark.parametrize("place", ["staging", "rejects", "tokens.zarr/parts"])
def test_nothing_that_a_link_leads_to_is_deleted(place: str, damageable: Job, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in PRECIOUS:
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).mkdir() if not name.endswith(".jsonl") else (elsewhere / name).touch()
    commit = damageable.store / f"commits/{PART}.json"
    for part in ("project", "", "notes"):  # records by which these would be lost attempts
        (commit.with_name(f"{part}.json")).write_text(commit.read_text())
        rewrite(commit.with_name(f"{part}.json"), part=part)
    if (damageable.store / place).is_dir():
        (damageable.store / place).rename(tmp_path / "moved")
    (damageable.store / place).symlink_to(elsewhere)

    swept = clean.run(damageable.config())
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(PRECIOUS)
    assert swept.deleted == []
    assert [message for message in swept.damaged if "a link" in message] == [
        f"{damageable.store}/{place}: a link; nothing that it leads to is deleted"
    ]


def test_what_this_package_did_not_name_stays(damageable: Job) -> None:
    commit = damageable.store / f"commits/{PART}.json"
    (commit.with_name("project.json")).write_text(commit.read_text())
    rewrite(commit.with_name("project.json"), part="project", attempt="v1")
    for name in ("project.old", f"{PART}.old", ".ssh"):
        (damageable.store / "staging" / name).mkdir(parents=True)
    swept = clean.run(damageable.config())
    assert (swept.deleted, swept.kept, swept.damaged) == ([], [], [])
    assert damageable.listing("staging") == sorted(["project.old", f"{PART}.old", ".ssh"])


@pytest.mark.parametrize("place", sampled("staging", "commits", "rejects", "claims", "tokens.zarr/parts"))
def test_a_job_writes_nothing_through_a_link(place: str, job: Job, tmp_path: Path) -> None:
    assert job.run("source.exclude=[train-*]").complete
    elsewhere = tmp_path / "elsewhere"
    if (job.store / place).is_dir():
        (job.store / place).rename(elsewhere)
    elsewhere.mkdir(exist_ok=True)
    (job.store / place).symlink_to(elsewhere)
    before = all_files(elsewhere)
    with pytest.raises(StoreError, match="it is a link, and nothing is written or deleted through one"):
        job.run()
    assert all_files(elsewhere) == before


def test_without_a_store_there_is_nothing_to_clean(job: Job) -> None:
    with pytest.raises(StoreError, match="not a token store"):
        clean.run(job.config())
    done = vqtok("clean", "--config", job.file, folder=job.output).wait()
    assert (done.status, done.out) == (1, "")
    assert done.err == f"vqtok: {job.store}: not a token store (no store.json); run vqtok tokenize first\n"
    assert not job.store.exists()


def test_a_store_of_objects_is_swept_as_well(
    s3: S3, bucket_url: str, collection: Path, tokenizer_folder: Path, finished: Job, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", collection, tokenizer_folder)
    tree = yaml.safe_load(job.file.read_text())
    tree["tokenize"]["store"] = bucket_url
    job.file.write_text(yaml.safe_dump(tree))
    assert job.run().complete
    files = files_at(bucket_url)
    lost, pending = f"{PART}.11111111", "unknown-000000000000.22222222"
    for path in (f"tokens.zarr/parts/{lost}/zarr.json", f"tokens.zarr/parts/{lost}/tokens/c/0/0"):
        files.put(path, b"12345")
    files.put(f"rejects/{lost}.jsonl", b"")
    files.put(f"tokens.zarr/parts/{pending}/zarr.json", b"123")

    result = cleaned(job, environment=s3.environment)
    assert result.pop("probes") == []
    assert result == {"store": bucket_url, "deleted": [lost], "bytes": 10, "kept": [pending], "damaged": []}
    assert lost not in files.folders("tokens.zarr/parts")
    assert pending in files.folders("tokens.zarr/parts")
    assert f"{lost}.jsonl" not in files.list("rejects")
    assert cleaned(job, environment=s3.environment)["deleted"] == []
    assert TokenStore(bucket_url).content_digest == finished.digest
    assert check_commits(job.config()).problems == []
