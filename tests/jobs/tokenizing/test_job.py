"""`vqtok tokenize`: every sample once, whoever works on it, whatever interrupts it."""

import itertools
import json
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from click.testing import CliRunner
from fixtures_store import (
    BATCH_SIZE,
    COLLECTION,
    IMAGE_SIZE,
    MIXED,
    REJECTED,
    ROWS,
    Halt,
    Job,
    Sample,
    all_files,
    cold,
    make_job,
    save_tiny_tokenizer,
    vqtok,
    wait_for,
)
from support import ROOT, sampled, shared_data
from tqdm import tqdm

from pipeline.claims import Claims, read_claim
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.errors import ConfigError, IdentityMismatch, StoreError, TokenizerError
from pipeline.files import LocalFiles
from pipeline.jobs import plan as plan_module
from pipeline.jobs.plan import make_plan
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.jobs.tokenizing import replaced
from pipeline.jobs.verifying.commits import check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.jobs.verifying.reencoding import encode_again
from pipeline.jobs.work import pauses
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.find import part_name
from pipeline.source.images.transform import ImageTransform
from pipeline.store import TokenStore
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import CommitRecord, read_commits

pytest_plugins = ["fixtures_store"]

LARGEST = "train-0000.tar"


def rows_of_collection() -> list[Sample]:
    """What must be in the store, in its order."""
    return [
        sample for path in sorted(COLLECTION, key=part_name) for sample in COLLECTION[path] if sample[0] not in REJECTED
    ]


def webdataset_samples(tar: Path) -> webdataset.WebDataset:
    return webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)


# --- what is written --------------------------------------------------------------------------------------


def test_rows_are_the_samples_of_the_tars(finished: Job) -> None:
    store = TokenStore(finished.store)
    expected = rows_of_collection()
    assert list(store.keys) == [key for key, _ in expected]
    assert store.labels.tolist() == [int(members.get("cls", b"-1")) for _, members in expected]
    assert len(store) == ROWS
    assert store.field_of("txt", np.arange(ROWS)) == [members.get("txt") for _, members in expected]


def test_tokens_are_those_of_the_model_for_the_images(finished: Job) -> None:
    config = finished.config()
    transform, tokenizer = ImageTransform(config.image), load_tokenizer(config.tokenizer.path, "quadrants")
    expected = []
    samples = rows_of_collection()
    for rows in (samples[start : start + BATCH_SIZE] for start in range(0, len(samples), BATCH_SIZE)):
        images = [next(data for name, data in sample[1].items() if name[-3:] in ("jpg", "png")) for sample in rows]
        img_B3HW = torch.stack([transform(data) for data in images])
        padded = torch.cat([img_B3HW, torch.zeros(BATCH_SIZE - len(rows), *img_B3HW.shape[1:], dtype=torch.uint8)])
        idx_Bl = tokenizer.encode(normalize_pixels(padded, tokenizer.normalization))
        expected.append(torch.cat(idx_Bl, dim=1)[: len(rows)])
    store = TokenStore(finished.store)
    assert store.block_lengths == (6, 6, 6, 6)  # quadrants of a grid of 4 x 6
    assert torch.equal(torch.cat(store.read(slice(None)).idx_Bl, dim=1), torch.cat(expected))
    assert len(torch.cat(expected).unique()) == 16


def test_webdataset_finds_the_same_samples(finished: Job) -> None:
    for path, record in finished.commits.items():
        seen = [sample["__key__"] for sample in webdataset_samples(finished.source / path)]
        assert record["seen"] == record["written"] + record["rejected"] == len(seen)
        assert seen == [key for key, _ in COLLECTION[path]]


def test_bad_samples_are_rejects_with_their_reasons(finished: Job) -> None:
    record = finished.commits["train-0003.tar"]
    lines = (finished.store / "rejects" / record["rejects"]["path"]).read_text().splitlines()
    rejects = {reject["key"]: reject for reject in map(json.loads, lines)}
    assert {key: reject["stage"] for key, reject in rejects.items()} == REJECTED
    assert {key: reject["index"] for key, reject in rejects.items()} == {
        key: index for index, key in enumerate(MIXED) if key in REJECTED
    }
    for key, reason in {
        "text": r"not an image of a known format .* starts with b'this is not '",
        "cut": "Truncated|premature|Premature",
        "empty": "the image member is empty",
        "huge": r"400x400 pixels are more than image\.max_pixels = 100,000",
        "no-image": r"no image member among \.cls, \.txt",
        "two-images": r"several image members .* name one in source\.image",
        "bad-label": r"\.cls holds b'cat', not an integer",
    }.items():
        assert re.search(reason, rejects[key]["reason"]), key
    assert (record["written"], record["rejected"], record["unlabelled"]) == (10, 7, 1)


def test_an_empty_source_shard_becomes_an_empty_part(finished: Job) -> None:
    record = finished.commits["train-0002.tar"]
    assert (record["seen"], record["arrays"]["tokens"]["shape"]) == (0, [0, 24])


def test_commits_say_how_tokens_were_made(finished: Job) -> None:
    for path, record in finished.commits.items():
        (source,) = record["sources"]
        assert source["bytes"] == (finished.source / path).stat().st_size
        assert (record["execution"]["precision"], record["execution"]["batch_size"]) == ("fp32", BATCH_SIZE)
        assert record["execution"]["device"].startswith(("cpu", "NVIDIA"))
        assert set(record["execution"]["versions"]) == {"torch", "torchvision", "pillow"}
        assert set(record["seconds"]) == {"read", "decode", "encode", "write", "wall"}
        assert record["counts"] == {"read": record["seen"], "decode": record["seen"], "encode": record["written"]}
        assert set(record["threads"]) == {"read", "decode", "encode", "write", "cores"}


def test_no_path_of_the_source_and_no_leftovers_are_in_the_store(finished: Job) -> None:
    assert finished.listing("claims") == finished.listing("staging") == finished.listing("failures") == []
    for path, data in all_files(finished.store).items():
        assert str(finished.source).encode() not in data, path


# --- the same contents, whoever works -----------------------------------------------------------------------


def test_processes_side_by_side_share_the_work(job: Job, finished: Job) -> None:
    first = job.start(halt=Halt("os.link", "/claims/", 2, signal.SIGSTOP))
    first.wait_until_stopped()
    second = job.start()
    # The second one does all that it can and waits for the claim of the first, which is alive.
    wait_for(lambda: len(job.commits) >= len(COLLECTION) - 1)
    first.signal(signal.SIGCONT)
    done = [first.wait(), second.wait()]
    assert [(process.status, process.err) for process in done] == [(0, ""), (0, "")]
    assert all(re.search(r"images(, [0-9]+ rejected)? in this process", process.out) for process in done)
    assert job.digest == finished.digest
    assert job.listing("claims") == []


def test_without_waiting_a_process_leaves_when_others_do_the_rest(job: Job, finished: Job) -> None:
    first = job.start(halt=Halt("os.link", "/commits/", 1, signal.SIGSTOP))
    first.wait_until_stopped()
    done = job.start("--no-wait").wait()
    assert done.status == 1
    missing = len(COLLECTION) - len(job.commits)
    assert 1 <= missing <= 5  # one being written, one in work, and those decoded ahead of it
    assert f"{len(COLLECTION) - missing} of 6 source shards are committed" in done.err
    first.signal(signal.SIGCONT)
    assert first.wait().status == 0
    assert job.digest == finished.digest


def test_a_rank_of_a_launcher_waits_for_no_other(job: Job, finished: Job) -> None:
    """With these variables a process group would be opened, and would wait for two more ranks."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    variables = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}
    child = job.start(environment={**variables, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    done = child.wait(timeout_s=60)
    assert (done.status, job.digest) == (0, finished.digest)
    assert (done.out, done.err) == ("", "")  # the summary is for the first to give


def test_of_processes_that_end_together_one_makes_the_manifest(
    damageable: Job, finished: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a read of every commit, so that all would read processes x commits."""
    (damageable.store / "manifest.json").unlink()
    plan, birth = make_plan(damageable.config()), read_birth(LocalFiles(damageable.store))
    reads: list[str] = []

    def slowly(files: LocalFiles, parts: list[str]) -> list[CommitRecord]:
        reads.extend(parts)
        time.sleep(0.3)
        return read_commits(files, parts)

    monkeypatch.setattr(tokenize, "read_commits", slowly)

    def finish() -> None:
        with Claims(plan.store, 60) as claims:
            tokenize._finish(plan, birth, claims, wait=True)
            assert (damageable.store / "manifest.json").exists()

    with ThreadPoolExecutor(4) as processes:
        for ended in [processes.submit(finish) for _ in range(4)]:
            ended.result()
    assert len(reads) == len(COLLECTION)
    assert damageable.digest == finished.digest
    assert damageable.listing("claims") == []


def test_who_waits_for_the_manifest_looks_ever_more_rarely(damageable: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    (damageable.store / "manifest.json").unlink()
    plan, birth = make_plan(damageable.config()), read_birth(LocalFiles(damageable.store))
    slept: list[float] = []
    with Claims(plan.store, 60) as other, Claims(plan.store, 60) as ours:
        assert other.acquire("manifest")

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 12:
                tokenize.bring_up_to_date(plan, birth)
                other.release("manifest")

        for module in (tokenize, pauses):
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
        tokenize._finish(plan, birth, ours, wait=True)
    assert 0.08 <= slept[0] <= 0.12
    assert 4.0 <= slept[-1] <= 6.0
    assert slept[-1] > 10 * slept[0]


def test_who_was_to_make_the_manifest_and_died_is_stood_in_for(damageable: Job, finished: Job) -> None:
    (damageable.store / "manifest.json").unlink()
    with Claims(LocalFiles(damageable.store), 60) as claims:
        assert claims.acquire("manifest")
        claim = read_claim(LocalFiles(damageable.store), "manifest")
    assert claim is not None
    LocalFiles(damageable.store).put("claims/manifest.json", claim.model_copy(update={"pid_started": 1}).to_json())
    assert damageable.run().complete
    assert (damageable.digest, damageable.listing("claims")) == (finished.digest, [])


@pytest.mark.parametrize("done", [False, True], ids=["all to do", "nothing to do"])
def test_a_run_lists_and_compares_once(job: Job, damageable: Job, done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def count(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(plan_module, "find_source_shards")
    count(plan_module, "committed_parts")
    count(plan_module, "read_manifest")
    count(replaced, "recorded")
    command = ["tokenize", "--no-progress", "--config", str((damageable if done else job).file)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert ("nothing to do" in result.output) is done
    # Before there is a store there is no manifest to look for.
    once = ["find_source_shards", "committed_parts", "recorded", *(["read_manifest"] if done else [])]
    assert calls == dict.fromkeys(once, 1)


LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m"],
    "processes": [sys.executable, "-m"],
}


def images_since(source: Path, progress: str) -> list[int]:
    """Images of all source shards but those that others had committed when a progress bar began."""
    begun = re.search(r"\| (\S+)/", progress)
    assert begun is not None, progress
    sizes = {path: (source / path).stat().st_size for path in COLLECTION}
    return [
        sum(len(samples) for path, samples in COLLECTION.items() if path not in before)
        for count in range(len(sizes))
        for before in itertools.combinations(sizes, count)
        if tqdm.format_sizeof(sum(sizes[path] for path in before)) == begun[1]
    ]


@pytest.mark.parametrize("launcher", sampled("processes", "torchrun", "accelerate"))
def test_every_launcher_gives_the_same_store(job: Job, finished: Job, launcher: str) -> None:
    more = ["--processes", "2"] if launcher == "processes" else []
    done = cold(
        *LAUNCHERS[launcher], *("pipeline", "tokenize", "--config", job.file, "--set", "tokenize.codec=raw"), *more
    )
    out, err = done.out, done.err
    assert done.status == 0, err
    assert "Traceback" not in err
    assert out.count("6 of 6 source shards are committed") == 1
    if launcher == "processes":  # they say one thing together
        assert re.match(r"62 images, 7 rejected in 2 processes, [\d,]+ images/s\n", out), out
        assert err.startswith("starting 2 processes: loading PyTorch\n")
        assert job.listing("claims") == []
    if "tokenize:" in err:  # a first process that comes late finds nothing to do and no progress to show
        counts = images_since(job.source, err)
        assert any(f"6/6 source shards, {images} images" in err for images in counts)  # of all processes together
    assert job.digest == finished.digest
    assert json.loads((job.store / "store.json").read_text())["codec"] == "raw"  # the options reached them all
    assert len(job.commits) == len(COLLECTION) == len(job.listing("tokens.zarr/parts")) - 1


def test_order_of_patterns_and_place_of_the_source_make_no_difference(
    copied: Path, tokenizer_folder: Path, finished: Job, tmp_path: Path
) -> None:
    patterns = [f"{copied}/more/train-{{0004,0000}}.tar", f"{copied}/train-000[13].tar", f"{copied}/train-000[!13].tar"]
    job = make_job(tmp_path / "job", copied, tokenizer_folder, {"source.shards": patterns})
    assert job.run().complete
    assert job.digest == finished.digest
    assert job.commits.keys() == finished.commits.keys()


def test_workers_and_codec_make_no_difference(job: Job, finished: Job) -> None:
    assert job.run("tokenize.decode_workers=5", "tokenize.codec=raw").complete
    assert job.digest == finished.digest


def test_a_set_that_grows_gives_what_it_gives_at_once(job: Job, finished: Job) -> None:
    first = job.run("source.exclude=[more/*, train-0003.tar]")
    assert (first.complete, first.planned, len(TokenStore(job.store))) == (True, 3, 25)
    before = job.commits
    grown = job.run()
    assert (grown.complete, grown.planned, grown.images) == (True, 6, 44)
    assert {path: job.commits[path] for path in before} == before
    assert job.digest == finished.digest
    assert TokenStore(job.store).manifest.generation == 2


# --- interruptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "fragment", "count"),
    [
        ("os.link", "/commits/", 3),
        *sampled(
            ("os.rename", "/tokens.zarr/zarr.json", 1),  # born, but for the last file of the hierarchy
            ("os.link", "/store.json", 1),  # before the birth
            ("os.link", "/claims/", 3),
            ("os.rename", "/manifest.json", 1),  # all committed
        ),
    ],
)
def test_a_killed_job_is_completed_by_the_next(job: Job, finished: Job, event: str, fragment: str, count: int) -> None:
    assert job.start(halt=Halt(event, fragment, count)).wait().status == -signal.SIGKILL
    before = job.commits
    started = time.monotonic()
    assert job.run().complete
    assert time.monotonic() - started < 30  # claims of the dead are taken over at once, not after a minute
    assert job.digest == finished.digest
    assert {path: job.commits[path] for path in before} == before


@pytest.mark.parametrize(
    ("number", "status", "err"),
    [
        (signal.SIGTERM, 143, "vqtok: ended by SIGTERM"),
        (signal.SIGINT, 130, "vqtok: ended by SIGINT"),
        (signal.SIGUSR1, 138, "vqtok: ended by SIGUSR1"),  # of Slurm's --signal
        (signal.SIGHUP, 129, "vqtok: ended by SIGHUP"),  # of a connection that is lost
    ],
    ids=["SIGTERM", "Ctrl-C", "SIGUSR1", "SIGHUP"],
)
def test_a_job_that_is_told_to_stop_releases_its_claims(
    job: Job, finished: Job, number: int, status: int, err: str
) -> None:
    child = job.start(halt=Halt("os.link", "/claims/", 2, signal.SIGSTOP))
    child.wait_until_stopped()
    assert len(job.listing("claims")) >= 1
    child.signal(number)
    child.signal(signal.SIGCONT)
    done = child.wait()
    assert (done.status, done.err.strip()) == (status, err)
    assert job.listing("claims") == []
    assert job.listing("staging") == []
    assert len(job.commits) < len(COLLECTION)
    assert job.run().complete
    assert job.digest == finished.digest


def test_a_process_that_outlives_its_claim_does_no_harm(job: Job, finished: Job) -> None:
    late = job.start(halt=Halt("os.link", "/commits/", 1, signal.SIGSTOP))
    late.wait_until_stopped()
    assert job.run("tokenize.claim_timeout=0.5").complete
    before = job.commits
    late.signal(signal.SIGCONT)
    assert late.wait().status == 0
    assert (job.commits, job.digest) == (before, finished.digest)
    attempts = {f"{record['part']}.{record['attempt']}" for record in before.values()}
    assert set(job.listing("tokens.zarr/parts")) == {*attempts, "zarr.json"}
    assert job.listing("claims") == []


def test_nothing_is_done_twice(damageable: Job) -> None:
    before = {path: path.stat().st_mtime_ns for path in damageable.store.rglob("*")}
    assert damageable.run().complete
    assert {path: path.stat().st_mtime_ns for path in damageable.store.rglob("*")} == before


def test_progress_counts_the_images_of_all_processes(job: Job) -> None:
    done = vqtok("tokenize", "--config", job.file, folder=job.output).wait()
    assert done.status == 0
    assert re.search(r"tokenize: 100%.*6/6 source shards, 69 images, \d+ images/s", done.err)


def test_another_image_size_than_trained_is_said_once(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(job.tokenizer, tmp_path / "trained")
    told = []
    for size, rank, excluded in (
        ([32, 48], "0", "more/*"),
        ([32, 48], "1", "more/*4.tar"),
        (list(IMAGE_SIZE), "0", "[]"),
    ):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "image_size": size}))
        monkeypatch.setenv("RANK", rank)
        before = len(job.commits) if job.store.exists() else 0
        assert job.run(f"tokenizer.path={folder}", f"source.exclude={excluded}").complete
        assert len(job.commits) > before
        told.append(capsys.readouterr().err)
    assert told == [
        f"vqtok: {folder}: was trained at an image.size of 32 x 48 pixels, and these images have 16 x 24: "
        "its codes may fit them less well\n",
        "",
        "",
    ]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("tokenize.layout=raster", 'identity.layout: "raster" here, "quadrants" there'),
        ("image.size=32", "identity.image.size: [32, 32] here, [16, 24] there"),
        ("image.interpolation=bilinear", 'identity.image.interpolation: "bilinear" here, "bicubic" there'),
        ("source.keep=[json,txt]", 'identity.source.keep: ["json", "txt"] here, ["txt"] there'),
        ("source.label=null", 'identity.source.label: null here, "cls" there'),
        ("tokenize.codec=raw", 'codec: "raw" here, "lz4" there'),
    ],
)
def test_tokens_of_another_kind_are_refused(job: Job, override: str, line: str) -> None:
    assert job.run("source.exclude=more/*").complete
    before = all_files(job.store)
    with pytest.raises(IdentityMismatch) as caught:
        job.run(override)
    assert line in str(caught.value).replace("\n  ", "\n").split("\n")
    assert all_files(job.store) == before


def test_another_tokenizer_is_refused(job: Job, tmp_path: Path) -> None:
    assert job.run("source.exclude=more/*").complete
    other = save_tiny_tokenizer(tmp_path / "other", seed=1)
    done = job.start("--set", f"tokenizer.path={other}").wait()
    assert (done.status, done.out) == (1, "")
    assert re.search(r'identity\.tokenizer\.weights: "sha256:\w+" here, "sha256:\w+" there', done.err)
    assert re.search(r'codebook\.sha256: "\w+" here, "\w+" there', done.err)
    assert "Traceback" not in done.err


def test_another_kind_is_told_before_another_execution(job: Job) -> None:
    """The remedy for the execution would not help."""
    assert job.run("source.exclude=more/*").complete
    with pytest.raises(IdentityMismatch, match=r"identity\.layout"):
        job.run("tokenize.layout=raster", "tokenize.batch_size=3")


def test_what_cannot_be_tokenized_at_all_is_said_before_anything_is_written(job: Job) -> None:
    with pytest.raises(ConfigError, match=r"image\.size: .* 30 x 30"):
        job.run("image.size=30")
    with pytest.raises(ConfigError, match=r"no block layout 'spiral'; known: raster, quadrants, diagonal"):
        job.run("tokenize.layout=spiral")
    with pytest.raises(TokenizerError, match="no such tokenizer folder"):
        job.run("tokenizer.path=nowhere")
    with pytest.raises(ConfigError, match=r"2 of 3 source shards are missing, first .*train-0007\.tar"):
        job.run(f"source.shards={job.source}/train-{{0001,0007,0008}}.tar")
    with pytest.raises(ConfigError, match="matches no file"):
        job.run(f"source.shards={job.source}/nothing-*.tar")
    assert not job.store.exists()


# --- bad source shards and bad machines -------------------------------------------------------------------


def test_a_truncated_tar_stays_pending_until_it_is_repaired(copied: Path, finished: Job, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", copied, finished.tokenizer)
    whole = (copied / LARGEST).read_bytes()
    (copied / LARGEST).write_bytes(whole[: len(whole) // 2])
    done = job.start().wait()
    assert (done.status, done.out) == (1, "")
    assert f"{LARGEST} stays pending: " in done.err
    assert "cut off" in done.err
    assert "5 of 6 source shards are committed" in done.err
    assert "Traceback" not in done.err
    assert job.commits.keys() == COLLECTION.keys() - {LARGEST}
    assert job.listing("claims") == []
    assert not (job.store / "manifest.json").exists()

    status = json.loads(vqtok("status", "--json", "--config", job.file, folder=job.output).wait().out)
    assert (status["done"], status["pending"], status["complete"]) == (5, 1, False)
    (failed,) = status["failed"]
    assert (failed["source"], failed["host"]) == (LARGEST, socket.gethostname())
    assert "cut off" in failed["reason"]

    (copied / LARGEST).write_bytes(whole)
    before = job.commits
    again = job.start().wait()
    assert (again.status, again.err) == (0, "")
    assert {path: job.commits[path] for path in before} == before
    assert job.listing("failures") == []
    assert job.digest == finished.digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + bytes(10240)), "bytes read, .* now, .* when the job began"),
        *sampled(
            (lambda path: path.unlink(), "the source shard is gone"),
            (lambda path: path.write_bytes(b""), "the file is empty"),
        ),
    ],
    ids=["grows", "vanishes", "empties"],
)
def test_a_tar_that_changes_under_the_job_fails_alone(
    copied: Path, tokenizer_folder: Path, tmp_path: Path, change: object, reason: str
) -> None:
    job = make_job(tmp_path / "job", copied, tokenizer_folder)
    child = job.start(halt=Halt("open", LARGEST, 1, signal.SIGSTOP))
    child.wait_until_stopped()
    change(next(copied.glob(LARGEST)))  # type: ignore[operator]
    child.signal(signal.SIGCONT)
    done = child.wait()
    assert done.status == 1
    assert re.search(reason, done.err)
    assert "Traceback" not in done.err
    assert "more/train-0000.tar" in job.commits
    assert job.commits.keys() >= COLLECTION.keys() - {LARGEST, "more/train-0000.tar"}
    assert LARGEST not in job.commits


def test_too_many_rejects_fail_the_source_shard_with_the_commonest_reasons(job: Job) -> None:
    result = job.run("tokenize.max_reject_rate=0.4")
    assert not result.complete
    assert job.commits.keys() == COLLECTION.keys() - {"train-0003.tar"}
    (reason,) = result.failures.values()
    assert "7 of 17 samples rejected, more than tokenize.max_reject_rate = 0.4: 1 x " in reason
    assert job.run("tokenize.max_reject_rate=0.42").complete


@pytest.mark.parametrize(
    ("file_bytes", "setting", "there", "missing"),
    [
        (2000, "image.size=64", "tokens.zarr/zarr.json", "commits/train-0000-*"),  # 256 tokens for each of 20 images
        *sampled(
            (700, "source.keep=txt", "", "store.json"),
            (1335, "source.keep=[]", "store.json", "tokens.zarr/zarr.json"),
            (3000, "source.keep=txt", "tokens.zarr/parts", "commits/*"),
        ),
    ],
    ids=["part", "birth", "hierarchy", "commit"],
)
def test_a_full_disk_ends_in_a_message_and_the_next_run_completes(
    job: Job, file_bytes: int, setting: str, there: str, missing: str
) -> None:
    done = job.start("--set", setting, file_bytes=file_bytes).wait()
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(
        rf"vqtok: {job.store}: \[Errno 27\] File too large.*; allow larger files \(ulimit -f\), then run again.*\n",
        done.err,
    )
    assert (job.store / there).exists()
    assert [path for path in job.store.glob(missing) if not path.name.startswith(".tmp-")] == []
    assert job.listing("claims") == job.listing("staging") == []
    assert job.run(setting).complete
    assert len(TokenStore(job.store)) == ROWS


def test_a_disk_too_full_for_the_manifest(job: Job, finished: Job) -> None:
    job.start(halt=Halt("os.rename", "/manifest.json")).wait()
    assert job.commits.keys() == COLLECTION.keys()
    done = job.start(file_bytes=2000).wait()
    assert (done.status, "File too large" in done.err, "Traceback" in done.err) == (1, True, False)
    assert not (job.store / "manifest.json").exists()
    assert job.run().complete
    assert job.digest == finished.digest


def test_a_decoder_that_is_not_installed_leaves_no_store(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Born, it would be bound to that decoder."""
    monkeypatch.setattr("pipeline.source.images.turbojpeg.simplejpeg", None)
    with pytest.raises(ConfigError, match="simplejpeg"):
        job.run("image.decoder=turbojpeg")
    assert not job.store.exists()


def test_a_store_that_cannot_be_a_folder_is_an_error(job: Job) -> None:
    job.store.parent.mkdir(parents=True, exist_ok=True)
    job.store.write_text("a file")
    done = job.start().wait()
    assert done.status == 2
    assert done.err == f"vqtok: tokenize.store: {job.store} cannot be a store: {job.store} is a file\n"
    assert job.store.read_text() == "a file"


def test_damage_to_the_hierarchy_is_noticed_at_the_start(damageable: Job) -> None:
    (damageable.store / "tokens.zarr/codebook/c/0/0").unlink()
    (damageable.store / f"commits/{part_name('train-0001.tar')}.json").unlink()
    (damageable.store / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"tokens\.zarr/codebook"):
        damageable.run()


@pytest.mark.parametrize("lost", ["zarr.json", "parts/zarr.json", "codebook"])
def test_what_lies_above_the_parts_is_written_anew(damageable: Job, lost: str) -> None:
    """As the error of a quick check says."""
    before = all_files(damageable.store)
    path = damageable.store / "tokens.zarr" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (problem,) = check_commits(damageable.config()).problems
    assert "delete tokens.zarr/zarr.json and run vqtok tokenize, which writes it anew" in problem
    (damageable.store / "tokens.zarr/zarr.json").unlink(missing_ok=True)
    assert damageable.run().complete
    assert all_files(damageable.store) == before
    assert check_commits(damageable.config()).problems == []


# --- real data --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cifar10_gives_a_row_for_every_member(tmp_path: Path) -> None:
    source = shared_data("cifar10")
    config = load_config(
        ROOT / "configs/cifar10.yaml",
        [
            f"source.shards={source}/cifar10-train-{{0000..0003}}.tar",
            f"tokenizer.path={save_tiny_tokenizer(tmp_path / 'tokenizer')}",
            f"tokenize.store={tmp_path / 'store'}",
        ],
    )
    assert tokenize.run(config, show_progress=False).complete
    store = TokenStore(tmp_path / "store")
    samples = []
    for part in store.manifest.parts:
        tar = source / part.sources[0].path
        samples += [(sample["__key__"], int(sample["cls"])) for sample in webdataset_samples(tar)]
    assert len(store) == 8000
    assert list(zip(store.keys, store.labels.tolist(), strict=True)) == samples
    assert len(np.unique(torch.cat(store.read(slice(None)).idx_Bl, dim=1))) > 8


@pytest.mark.slow
def test_photographs_of_every_size_are_rows_or_rejects(tokenizer_folder: Path, tmp_path: Path) -> None:
    source = shared_data("photos")
    changes = {"source.shards": f"{source}/*.tar", "source.base": None, "image.max_pixels": 10**8, "image.size": 64}
    job = make_job(tmp_path / "job", source, tokenizer_folder, changes)
    assert job.run().complete
    expected = {sample["__key__"] for tar in source.glob("*.tar") for sample in webdataset_samples(tar)}
    manifest = TokenStore(job.store).manifest
    assert (manifest.written, manifest.rejected) == (len(expected), 0)
    assert set(TokenStore(job.store).keys) == expected
    result = check_commits(job.config())
    check_contents(job.config(), result, show_progress=False)
    encode_again(job.config(), result, 1, show_progress=False)
    assert (result.problems, result.warnings) == ([], [])
    assert result.rows_encoded_again >= 5 * BATCH_SIZE / 2
