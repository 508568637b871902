"""`vqtok check`: what is missing is found before the job, and nothing is left behind."""

import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from fixtures_collections import KINDS
from fixtures_s3 import BUCKET, DENIED, S3, Faults, Proxy
from fixtures_store import Child, Halt, Job, all_files, cold_python, make_job, save_tiny_tokenizer, vqtok, write_shard
from support import file_system, free_port

from pipeline.cli import main
from pipeline.files import files_at
from pipeline.jobs.checking import job as check
from pipeline.jobs.checking.lines import Checks
from pipeline.store.schema import names

pytest_plugins = ["fixtures_store", "fixtures_collections", "fixtures_s3"]

EVERYWHERE = (
    "tokenizer loads, tokenizer image.size, source labels, image read, image decode, image encode, image write, "
    "job resume"
)
ALL_LOCAL = (
    "store place, store folder, store write and fsync, store read, store hard links, store replace, store rename, "
    f"store delete, source list, source read, store free space, {EVERYWHERE}"
)
ALL_DISTANT = (
    "store place, store server, store credentials, store bucket, store LIST, store PUT, store GET by range, "
    "store If-None-Match, store PUT again, store DELETE, source server, source credentials, source bucket, "
    f"source LIST, source GET by range, {EVERYWHERE}"
)


def failures(checks: Checks) -> dict[str, str]:
    """What is said of each thing that failed, by name."""
    return {f"{line.about} {line.tried}": line.said for line in checks.lines if line.status == "failed"}


def tried(checks: Checks) -> set[str]:
    return {f"{line.about} {line.tried}" for line in checks.lines}


def said(checks: Checks, name: str) -> str:
    return next(line.said for line in checks.lines if f"{line.about} {line.tried}" == name)


# --- all is there -----------------------------------------------------------------------------------------


def test_everything_holds_and_nothing_is_left(job: Job) -> None:
    done = CliRunner().invoke(main, ["check", "--config", str(job.file)], prog_name="vqtok")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    assert [" ".join(line[:25].split()) for line in done.stdout.splitlines()] != []
    assert not job.store.exists()

    done = CliRunner().invoke(main, ["check", "--json", "--config", str(job.file)], prog_name="vqtok")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"]) == (0, True)
    assert {f"{line['about']} {line['tried']}" for line in found["lines"]} == set(ALL_LOCAL.split(", "))
    assert {line["status"] for line in found["lines"]} == {"ok"}
    assert "6 of 6 source shards are pending" in found["lines"][-1]["said"]
    assert not job.store.exists()


@pytest.mark.parametrize("kind", [*KINDS, "folder", "pipe"])
def test_every_container_kind_goes_the_whole_way(
    kind: str, class_folders: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    settings: dict[str, Any] = {"label": None if kind == "nested" else "cls"}
    if kind == "folder":
        settings = {"shards": str(class_folders), "label": "folder"}
    elif kind == "pipe":
        write_shard(tmp_path / "data/a.tar", [("a", {"jpg": (class_folders / "cats/1.jpg").read_bytes(), "cls": b"1"})])
        settings |= {"shards": f"pipe:cat {tmp_path}/data/a.tar", "allow_pipe": True}
    else:
        make, _, needed = KINDS[kind]
        name = make(tmp_path / "data")
        settings |= {"shards": f"{name}/*.tar" if kind == "plain" else name, **needed}
    job = make_job(tmp_path / "job", tmp_path, tokenizer_folder)
    tree = yaml.safe_load(job.file.read_text())
    tree["source"] = settings
    job.file.write_text(yaml.safe_dump(tree))
    checks = check.run(job.config())
    assert failures(checks) == {}
    assert {"image write", "job resume"} <= tried(checks)
    assert not job.store.exists()


def test_a_store_in_objects_holds_and_nothing_is_left(
    s3: S3, bucket_url: str, collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = distant(tmp_path, collection, tokenizer_folder, bucket_url)
    before = files_at(f"s3://{BUCKET}").stats("")
    checks = check.run(job.config())
    assert failures(checks) == {}
    assert tried(checks) == set(ALL_DISTANT.split(", "))
    assert files_at(f"s3://{BUCKET}").stats("") == before


# --- the store on a disk ----------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_left_as_it_was(job: Job, tmp_path: Path) -> None:
    with file_system(tmp_path / "disk", 1) as disk:
        with pytest.raises(OSError, match="No space left"):
            (disk / "filling").write_bytes(bytes(2 << 20))
        checks = check.run(job.config(f"tokenize.store={disk}/runs/store"))
        (name,) = failures(checks)
        assert name == "store write and fsync"
        assert "No space left on device" in failures(checks)[name]
        assert "image encode" in tried(checks)
        assert [path.name for path in disk.iterdir()] == ["filling"]


def test_too_little_room_for_the_whole_collection_is_said(job: Job, tmp_path: Path) -> None:
    (tmp_path / "large.tar").write_bytes((job.source / "train-0000.tar").read_bytes())
    os.truncate(tmp_path / "large.tar", 1 << 40)
    with file_system(tmp_path / "disk", 2) as disk:
        checks = check.run(
            job.config(f"tokenize.store={disk}/store", f"source.shards={tmp_path}/large.tar", "source.base=null")
        )
        assert list(failures(checks)) == ["store free space"]
        assert "make room, or name another tokenize.store" in failures(checks)["store free space"]


def test_a_read_only_disk_is_said(job: Job, tmp_path: Path) -> None:
    with file_system(tmp_path / "disk", 1) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        checks = check.run(job.config(f"tokenize.store={disk}/store"))
        assert "is read-only" in failures(checks)["store folder"]
        assert "store write and fsync" not in tried(checks)
        assert "image encode" in tried(checks)


def test_a_file_system_without_hard_links_is_said(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    checks = check.run(job.config())
    assert "has no hard links" in failures(checks)["store hard links"]
    assert not job.store.exists()


# --- source, tokenizer, image -----------------------------------------------------------------------------


BAD: dict[str, tuple[list[str], str, str]] = {
    "no source": (["source.shards=nowhere/*.tar", "source.base=null"], "source list", "matches no file"),
    "no tokenizer": (["tokenizer.path=nowhere"], "tokenizer loads", "nowhere: no such tokenizer folder"),
    "wrong size": (["image.size=[18, 24]"], "tokenizer image.size", "such as 16 x 24 or 20 x 24"),
    "no layout": (["tokenize.layout=spiral"], "tokenizer loads", "no block layout 'spiral'"),
    "no image": (["source.image=webp"], "image decode", "becomes a row: "),
    "no classes": (["source.label=prefix:_"], "source labels", "needs a file with the names of all classes"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_wrong_has_the_line_with_the_remedy(fault: str, job: Job) -> None:
    overrides, name, message = BAD[fault]
    checks = check.run(job.config(*overrides))
    assert message in failures(checks).get(name, ""), checks.lines
    done = CliRunner().invoke(main, ["check", "--config", str(job.file), *sets(overrides)], prog_name="vqtok")
    assert done.exit_code == 1
    assert "FAILED" in done.stdout
    assert not job.store.exists()


def sets(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def test_a_tokenizer_that_will_be_trained_is_no_fault(job: Job) -> None:
    settings = ["tokenizer.path=later", "train.steps=10"]
    checks = check.run(job.config(*settings))
    assert failures(checks) == {}
    assert "vqtok train, or vqtok run, will train it" in said(checks, "tokenizer loads")
    assert "image decode" in tried(checks)
    assert "cannot take it" in failures(check.run(job.config(*settings, "image.size=[18, 24]")))["tokenizer image.size"]


def test_members_that_no_sample_has_are_noted(job: Job) -> None:
    checks = check.run(job.config("source.keep=[caption]"))
    assert failures(checks) == {}
    assert "source.keep: caption" in said(checks, "image members")


def test_a_label_that_no_sample_has_is_noted(job: Job, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("elsewhere/a.jpg,1\n")
    for label, shown in (
        ("id", "source.label: id)"),
        (f"table:{tmp_path}/other.csv", "that of 'elsewhere/a', and none"),
    ):
        checks = check.run(job.config(f"source.label={label}"))
        assert failures(checks) == {}
        assert shown in said(checks, "image members")
    assert "image members" not in tried(check.run(job.config("source.label=null")))


def test_a_bad_configuration_is_status_2(job: Job) -> None:
    done = CliRunner().invoke(main, ["check", "--config", str(job.file), "--set", "image.size=big"], prog_name="vqtok")
    assert (done.exit_code, done.stdout) == (2, "")


def test_without_a_tokenizer_torch_is_not_imported(job: Job) -> None:
    code = (
        "import sys; from pipeline.config import load_config; from pipeline.jobs.checking import job\n"
        "config = load_config(sys.argv[1], ['tokenizer.path=nowhere', 'source.shards=nowhere.tar'])\n"
        "assert job.run(config).failed; print('torch' in sys.modules, 'zarr' in sys.modules)"
    )
    done = cold_python(code, job.file)
    assert done.out == "False False\n", done.err


# --- the job ----------------------------------------------------------------------------------------------


def test_whether_the_job_would_go_on_in_its_store(damageable: Job, tmp_path: Path) -> None:
    before = all_files(damageable.store)
    assert said(check.run(damageable.config()), "job resume").endswith("; there is nothing to do")
    other = f"tokenizer.path={save_tiny_tokenizer(tmp_path / 'other', seed=1)}"
    refusals = {
        other: "this configuration makes other tokens than the store holds",
        "image.size=[16, 16]": "image.size",
        "tokenize.batch_size=4": "made in another way",
        f"source.exclude={damageable.source}/more/*": "",
        "tokenizer.path=later": "tokens of a tokenizer that is not in later",
    }
    for override, reason in refusals.items():
        settings = [override, *(["train.steps=1"] if "later" in override else [])]
        assert reason in failures(check.run(damageable.config(*settings))).get("job resume", ""), override
    assert all_files(damageable.store) == before
    record = next((damageable.store / "commits").iterdir())
    record.unlink()
    (damageable.store / "manifest.json").unlink()
    checks = check.run(damageable.config())
    assert failures(checks) == {}
    assert "1 of 6 source shards are pending" in said(checks, "job resume")
    assert said(checks, "job resume").endswith("it would go on in the store")


# --- object stores ----------------------------------------------------------------------------------------


def distant(folder: Path, source: Path, tokenizer: Path, url: str) -> Job:
    """A job whose source and store are objects."""
    for path in ("train-0000.tar", "train-0001.tar"):
        files_at(f"{url}-source").put(path, (source / path).read_bytes())
    job = make_job(folder / "job", source, tokenizer)
    tree = yaml.safe_load(job.file.read_text())
    tree["source"].update(shards=[f"{url}-source/*.tar"], base=f"{url}-source")
    tree["tokenize"].update(store=f"{url}/store")
    job.file.write_text(yaml.safe_dump(tree))
    return job


@pytest.fixture
def remote(s3: S3, bucket_url: str, collection: Path, tokenizer_folder: Path, tmp_path: Path) -> Job:
    return distant(tmp_path, collection, tokenizer_folder, bucket_url)


def through(proxy: Proxy, patch: pytest.MonkeyPatch, faults: Faults) -> None:
    """Point this process at the proxy."""
    proxy.faults = faults
    patch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    fresh_clients()


def fresh_clients() -> None:
    """Forget clients of another endpoint."""
    from pipeline import files

    files._objects_at.cache_clear()


DENIALS = {
    "PutObject": ("store PUT", "s3:PutObject"),
    "DeleteObjects": ("store DELETE", "s3:DeleteObject"),
    "ListObjects": ("store LIST", "s3:ListBucket"),
    "GetObject": ("store GET by range", "s3:GetObject"),
}


@pytest.mark.parametrize("operation", DENIALS)
def test_an_operation_that_is_denied_is_named_with_its_permission(
    operation: str, remote: Job, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, permission = DENIALS[operation]
    store = remote.config().tokenize.store.removeprefix(f"s3://{BUCKET}/")
    places = {"DeleteObjects": "", "ListObjects": store.replace("/", "%2F")}  # keys are in the body, and in the query
    denied = Faults(refuse=1.0, operation=operation, answer=DENIED, fragment=places.get(operation, store))
    through(proxy, monkeypatch, denied)
    started = time.monotonic()
    checks = check.run(remote.config())
    assert permission in failures(checks)[name], checks.lines
    assert time.monotonic() - started < 20


def test_a_server_that_overwrites_is_found(remote: Job, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    through(proxy, monkeypatch, Faults(ignore_conditions=True))
    checks = check.run(remote.config())
    assert "this place overwrites where a file should only be created" in failures(checks)["store If-None-Match"]
    assert files_at(remote.config().tokenize.store).stats("") == {}


def test_a_missing_bucket_is_found(remote: Job) -> None:
    checks = check.run(remote.config("tokenize.store=s3://no-such-bucket/store"))
    assert "NoSuchBucket" in failures(checks)["store bucket"]
    assert "image encode" in tried(checks)


def test_a_key_that_the_server_does_not_know_is_found(
    remote: Job, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    through(proxy, monkeypatch, Faults(refuse=1.0, answer=unknown))
    found = failures(check.run(remote.config()))
    assert set(found) == {"store credentials", "source credentials"}


@pytest.mark.parametrize("silent", [False, True])
def test_a_dead_server_is_told_in_bounded_time(silent: bool, remote: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that refuses connections, and one that takes them and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1] if silent else free_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        fresh_clients()
        started = time.monotonic()
        checks = check.run(remote.config(), seconds=1)
        assert time.monotonic() - started < 30
    assert set(failures(checks)) == {"store server", "source server"}
    assert "tokenizer image.size" in tried(checks)


def test_the_command_ends_though_a_server_still_owes_an_answer(remote: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{listening.getsockname()[1]}"}
        arguments = ("check", "--seconds", "1", "--json", "--config", remote.file)
        done = vqtok(*arguments, folder=remote.output, environment=endpoint).wait()
    assert (done.status, done.err, json.loads(done.out)["ok"]) == (1, "", False)


# --- killed -----------------------------------------------------------------------------------------------


def test_what_a_killed_check_leaves_is_deleted_by_clean(job: Job) -> None:
    killed = vqtok("check", "--config", job.file, folder=job.output, halt=Halt("os.link", "/probe-")).wait()
    assert killed.status == -signal.SIGKILL
    (probe,) = job.listing("")
    assert names.is_probe(probe)
    done = vqtok("clean", "--json", "--config", job.file, folder=job.output).wait()
    assert (done.status, json.loads(done.out)["probes"]) == (0, [probe])
    assert job.listing("") == []


def test_what_a_killed_check_leaves_among_objects_is_deleted_by_clean(remote: Job, s3: S3, proxy: Proxy) -> None:
    child: list[Child] = []
    ready = threading.Event()

    def watch(method: str, path: str, forwarded: bool) -> None:
        if method == "PUT" and "/probe-" in path and "/commits/" in path and forwarded:
            ready.wait(60)
            child[0].signal(signal.SIGKILL)

    proxy.faults = Faults(watch=watch)
    child.append(vqtok("check", "--config", remote.file, folder=remote.output, environment=proxy.s3.environment))
    ready.set()
    assert child[0].wait().status == -signal.SIGKILL
    files = files_at(remote.config().tokenize.store)
    assert files.stats("") != {}
    done = vqtok("clean", "--config", remote.file, folder=remote.output, environment=s3.environment).wait()
    assert (done.status, done.err) == (0, "")
    assert files.stats("") == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_check_that_is_told_to_end_leaves_nothing(number: int, job: Job) -> None:
    halted = vqtok(
        "check", "--config", job.file, folder=job.output, halt=Halt("os.rename", "/probe-", signal=signal.SIGSTOP)
    )
    halted.wait_until_stopped()
    halted.signal(number)
    halted.signal(signal.SIGCONT)
    assert halted.wait().status in (1, 128 + number)
    assert not job.store.exists()
