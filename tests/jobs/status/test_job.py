"""`vqtok status`: how far a job is, from the store alone."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from damage import edit, rewrite
from fixtures_store import COLLECTION, ROWS, Halt, Job, make_job, save_tiny_tokenizer, vqtok, wait_for

from pipeline.claims import START, Claim, Claims, read_claims
from pipeline.errors import ConfigError
from pipeline.files import LocalFiles
from pipeline.jobs.status import job as status
from pipeline.jobs.status.table import duration, status_table
from pipeline.jobs.work.starting import read_starts
from pipeline.source.find import part_name

pytest_plugins = ["fixtures_store"]

FIELDS = {
    "store": str,
    "time": str,
    "exists": bool,
    "planned": int,
    "done": int,
    "pending": int,
    "planned_bytes": int,
    "pending_bytes": int,
    "fraction_done": float,
    "running": list,
    "starting": int,
    "failed": list,
    "gave_up": dict | None,
    "unplanned": list,
    "written": int,
    "rejected": int,
    "unlabelled": int,
    "missing": dict,
    "rejects": list,
    "images_per_second": float | None,
    "recent_images_per_second": float | None,
    "bounds": dict | None,
    "eta_seconds": float | None,
    "complete": bool,
    "differs": list,
    "damaged": list,
}


def asked(job: Job) -> dict[str, object]:
    """What `--json` prints, its form checked."""
    done = vqtok("status", "--json", "--config", job.file, folder=job.output).wait()
    assert (done.status, done.err) == (0, "")
    answer = json.loads(done.out)
    assert list(answer) == list(FIELDS)
    for name, kind in FIELDS.items():
        assert isinstance(answer[name], kind), name
    assert answer["planned"] == answer["done"] + answer["pending"]
    return dict(answer)


def commit_file(job: Job, path: str) -> Path:
    return job.store / f"commits/{part_name(path)}.json"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("image.size=64", "image.size: [64, 64] here, [16, 24] there"),
        ("tokenize.layout=raster", 'layout: "raster" here, "quadrants" there'),
        ("source.keep=[]", "source.keep: "),
    ],
)
def test_a_store_of_another_configuration_is_not_called_complete(finished: Job, override: str, field: str) -> None:
    result = status.run(finished.config(override))
    assert result.complete
    assert [line for line in result.differs if line.startswith(field)] == result.differs != []
    assert "complete" not in status_table(result).splitlines()
    assert f"\nnot what this configuration makes\n{result.differs[0]}" in status_table(result)


def test_another_tokenizer_shows_and_one_that_is_not_here_hides_nothing(finished: Job, tmp_path: Path) -> None:
    other = save_tiny_tokenizer(tmp_path / "other", seed=7)
    (told,) = status.run(finished.config(f"tokenizer.path={other}")).differs
    assert told.startswith("tokenizer.weights: ")
    for elsewhere in (tmp_path / "nowhere", "s3://nobody/tokenizer"):
        assert status.run(finished.config(f"tokenizer.path={elsewhere}")).differs == []


def test_a_job_that_nobody_has_begun(job: Job) -> None:
    answer = asked(job)
    size = sum((job.source / path).stat().st_size for path in COLLECTION)
    assert (answer["done"], answer["pending"], answer["pending_bytes"], answer["written"]) == (0, 6, size, 0)
    assert (answer["planned_bytes"], answer["fraction_done"], answer["rejects"]) == (size, 0, [])
    assert (answer["images_per_second"], answer["recent_images_per_second"]) == (None, None)
    assert (answer["eta_seconds"], answer["complete"], answer["exists"]) == (None, False, False)
    assert status_table(status.run(job.config())).splitlines()[1:] == [
        f"[{'.' * 30}] 0.0% of {size / 1000:.1f} kB",
        "0 of 6 source shards are committed",
        "0 samples written, 0 rejected",
        "no store yet: run vqtok tokenize; a job that was just started makes it once PyTorch is loaded",
    ]
    assert not job.store.exists()


def test_processes_that_start_up_count_as_at_work(job: Job) -> None:
    files = LocalFiles(job.store)
    with Claims(files, 60) as claims:
        claims.acquire(f"{START}3-0123456789ab")
        answer = asked(job)
        assert (answer["starting"], answer["running"]) == (3, [])
        assert status_table(status.run(job.config())).endswith("\nstarting up: 3 processes, loading PyTorch")
        (gone,) = (start.model_copy(update={"pid_started": 1}) for start in read_starts(files))
        files.put(f"claims/{gone.part}.json", gone.to_json())
        assert status.run(job.config()).starting == 0  # it was killed meanwhile
    assert read_claims(files) == []


def test_a_finished_job(finished: Job) -> None:
    answer = asked(finished)
    assert (answer["done"], answer["pending"], answer["pending_bytes"], answer["complete"]) == (6, 0, 0, True)
    assert (answer["written"], answer["rejected"], answer["eta_seconds"]) == (ROWS, 7, None)
    text = vqtok("status", "--config", finished.file, folder=finished.output).wait().out
    assert "6 of 6 source shards are committed" in text
    assert f"{ROWS} samples written, 7 rejected" in text
    assert re.search(r"^\[#{30}\] 100\.0% of [\d.]+ kB$", text, re.MULTILINE)
    assert "complete" in text.splitlines()


def test_all_committed_is_not_complete_without_the_manifest(damageable: Job) -> None:
    (damageable.store / "manifest.json").unlink()
    answer = asked(damageable)
    assert (answer["pending"], answer["complete"]) == (0, False)


def test_who_is_at_work_is_shown_until_it_is_gone(job: Job) -> None:
    child = job.start(halt=Halt("os.link", "/commits/", 2, signal.SIGSTOP))
    child.wait_until_stopped()
    answer = asked(job)
    assert answer["done"] == 1
    running = answer["running"]
    assert isinstance(running, list)
    assert 1 <= len(running) <= 5  # one being written, one in work, and those decoded ahead of it
    for claim in running:
        assert list(claim) == [*status.Running.__dataclass_fields__]
        assert 0 <= claim["seconds"] < 600
        assert abs(datetime.fromisoformat(claim["since"]) - datetime.now(UTC)) < timedelta(minutes=10)
        assert (claim["heartbeat_seconds"], claim["stale"]) == (None, False)  # it has looked but once
        assert part_name(claim["source"]) == claim["part"]
        assert claim["host"] == socket.gethostname()
        assert Path(f"/proc/{claim['pid']}").exists()
        assert claim["pid"] != os.getpid()
        assert claim["part"] in {part_name(path) for path in COLLECTION}
    table = status_table(status.run(job.config()))
    for claim in running:
        assert re.search(rf"^{claim['source']} .* {socket.gethostname()} +{claim['pid']}", table, re.MULTILINE), table
    child.signal(signal.SIGKILL)
    child.wait()
    assert job.listing("claims") != []
    assert asked(job)["running"] == []


def test_the_last_failure_of_what_is_pending_is_shown(copied: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", copied, tokenizer_folder)
    (copied / "train-0001.tar").write_bytes(b"no tar" * 200)
    assert not job.run().complete
    (failure,) = asked(job)["failed"]  # type: ignore[misc]
    assert set(failure) == {"source", "reason", "host", "time"}
    assert failure["source"] == "train-0001.tar"
    assert "not a tar at all" in failure["reason"]
    assert re.search(
        rf"^failed +at +reason\ntrain-0001\.tar  [\d:-]+ +{re.escape(failure['reason'])}$",
        status_table(status.run(job.config())),
        re.MULTILINE,
    )


def test_what_is_committed_but_not_planned_is_shown(finished: Job) -> None:
    result = status.run(finished.config("source.exclude=more/*"))
    assert (result.planned, result.done, result.complete) == (4, 4, False)
    assert result.unplanned == sorted(part_name(path) for path in COLLECTION if path.startswith("more/"))
    assert f"committed, but not of this configuration\n{result.unplanned[0]}\n" in status_table(result)


def test_rejects_are_counted_by_reason(finished: Job) -> None:
    answer = asked(finished)
    rejects = answer["rejects"]
    assert isinstance(rejects, list)
    assert sum(reason["samples"] for reason in rejects) == answer["rejected"] == 7
    (label,) = [reason for reason in rejects if reason["stage"] == "label"]
    assert label == {
        "stage": "label",
        "reason": ".cls holds b'cat', not an integer; the names of classes go into source.classes",
        "samples": 1,
        "source": "train-0003.tar",
        "key": "bad-label",
    }
    table = status_table(status.run(finished.config()))
    assert re.search(
        r"^ +1  label +\.cls holds b'cat', not an integer; the names of classes go into source\.classes"
        r" +bad-label in train-0003\.tar$",
        table,
        re.MULTILINE,
    )


def test_only_rejects_of_parts_that_have_some_are_read(damageable: Job) -> None:
    for path in (damageable.store / "rejects").iterdir():
        if path.stat().st_size == 0:
            path.unlink()
    assert len(status.run(damageable.config()).rejects) == 7
    shutil.rmtree(damageable.store / "rejects")
    result = status.run(damageable.config())  # a loss, but none that keeps anybody from seeing the rest
    assert (result.rejected, result.rejects) == (7, [])


FINISHED = {"train-0000.tar": "10:00:00", "train-0003.tar": "10:00:20", "train-0001.tar": "10:00:40"}
"""Three commits within a minute, each after eight busy seconds."""


def committed_then(job: Job) -> dict[str, int]:
    """Leave the three commits; sizes of all source shards."""
    for path in COLLECTION:
        if path in FINISHED:
            finish = f"2026-01-01T{FINISHED[path]}+00:00"
            rewrite(commit_file(job, path), finished=finish, seconds={"encode": 7.5, "write": 0.5})
        else:
            commit_file(job, path).unlink()
    return {path: (job.source / path).stat().st_size for path in COLLECTION}


def test_rate_and_time_to_go_follow_from_the_commits(damageable: Job) -> None:
    size = committed_then(damageable)
    result = status.run(damageable.config())
    assert result.images_per_second == pytest.approx((20 + 17 + 5) / 48)
    assert result.recent_images_per_second is None  # that day is over
    pending = sum(size[path] for path in COLLECTION if path not in FINISHED)
    assert result.pending_bytes == pending
    assert result.fraction_done == pytest.approx(1 - pending / sum(size.values()))
    assert result.eta_seconds == pytest.approx(pending / (sum(size[path] for path in FINISHED) / 48))
    table = status_table(result)
    assert "1 images/s on average while at work" in table
    assert f"nobody is at work, about {duration(result.eta_seconds)} to go: run vqtok tokenize" in table


def test_a_day_in_which_nothing_ran_does_not_slow_the_rate(damageable: Job) -> None:
    committed_then(damageable)
    rewrite(commit_file(damageable, "train-0001.tar"), finished="2026-01-02T10:00:40+00:00")
    assert status.run(damageable.config()).images_per_second == pytest.approx((20 + 17 + 5) / (28 + 8))


def claim_of(job: Job, path: str, age_s: float, **changes: object) -> Claim:
    """Put the claim of a process on another host."""
    claim = Claim(
        part=part_name(path),
        token="t",
        host="elsewhere",
        boot_id="",
        pid_namespace="",
        pid=7,
        pid_started=1,
        since=(datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds"),
    ).model_copy(update=changes)
    LocalFiles(job.store).put(f"claims/{claim.part}.json", claim.to_json())
    return claim


def test_what_is_in_work_counts_for_the_bar_and_the_recent_rate(damageable: Job) -> None:
    size = committed_then(damageable)
    path = "more/train-0000.tar"
    claim_of(damageable, path, 300, images=9000, bytes=size[path] // 2)
    result = status.run(damageable.config())
    (running,) = result.running
    assert (running.source, running.host, running.pid, running.images) == (path, "elsewhere", 7, 9000)
    assert running.seconds == pytest.approx(300, abs=30)
    assert result.recent_images_per_second == pytest.approx(30, rel=0.1)
    left = result.pending_bytes - size[path] // 2
    assert result.fraction_done == pytest.approx(1 - left / sum(size.values()))
    assert result.eta_seconds == pytest.approx(left / (size[path] // 2 / 300), rel=0.1)
    table = status_table(result)
    assert re.search(r"^more/train-0000\.tar +\S+( \S+)? +5 min \d+ s +9,000 +elsewhere +7$", table, re.MULTILINE), (
        table
    )
    assert re.search(r"30 images/s in the last 10 min, 1 images/s on average while at work\nready in about ", table)


def test_an_observer_tells_how_long_a_heartbeat_has_stood_still(damageable: Job) -> None:
    size = committed_then(damageable)
    path = "more/train-0000.tar"
    claim = claim_of(damageable, path, 3, images=1, bytes=100)
    observer = status.Observer(damageable.config("tokenize.claim_timeout=0.5"))
    (first,) = observer.look().running
    assert (first.heartbeat_seconds, first.stale) == (None, False)
    time.sleep(0.6)
    claim_of(damageable, path, 3, images=1, bytes=100, beats=claim.beats + 1)
    (second,) = observer.look().running
    assert (second.heartbeat_seconds, second.stale) == (0, False)
    time.sleep(0.6)
    result = observer.look()
    (third,) = result.running
    assert third.heartbeat_seconds is not None
    assert third.heartbeat_seconds >= 0.6
    assert third.stale
    assert result.fraction_done == pytest.approx(1 - result.pending_bytes / sum(size.values()))  # to be done again
    assert "elsewhere        7  0 s ago, stale" in status_table(result)


def test_an_observer_reads_each_commit_once(damageable: Job) -> None:
    kept = commit_file(damageable, "train-0003.tar")
    data = kept.read_bytes()
    kept.unlink()
    observer = status.Observer(damageable.config())
    assert (observer.look().written, observer.look().rejects) == (ROWS - 10, [])
    commit_file(damageable, "train-0000.tar").write_text("not read again")
    kept.write_bytes(data)
    result = observer.look()
    assert (result.written, len(result.rejects), result.complete) == (ROWS, 7, True)
    kept.unlink()
    assert observer.look().done == 5


def test_commits_of_one_moment_have_no_rate(damageable: Job) -> None:
    for path in COLLECTION:
        rewrite(commit_file(damageable, path), finished="2026-01-01T10:00:00+00:00", seconds={"encode": 0.2})
    assert status.run(damageable.config()).images_per_second is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"since": "2', '"since": "x'),
        ('"part": "', '"part": "x'),
        ('"since": "20', '"since": "00'),
        ("{", "["),
        ('"bytes": 0', f'"bytes": {10**13}'),
        ('"bytes": 0', f'"bytes": {10**30}'),
    ],
)
def test_a_damaged_claim_hides_nothing(damageable: Job, old: str, new: str) -> None:
    path = damageable.store / f"commits/{part_name('train-0003.tar')}.json"
    path.unlink()
    (damageable.store / "manifest.json").unlink()
    with Claims(LocalFiles(damageable.store), 60) as claims:
        assert claims.acquire(path.stem)
        claim = damageable.store / "claims" / path.name
        text = claim.read_text().replace('"host": "', '"host": "another')
        assert old in text
        claim.write_text(text.replace(old, new, 1))
        result = status.run(damageable.config())
    is_read = old != "{" and not new.endswith("0" * 30)
    assert (result.done, result.pending, len(result.running)) == (5, 1, int(is_read))
    assert [message.partition(": ")[0] for message in result.damaged] == [] if is_read else [str(claim)]
    assert 0 < result.fraction_done <= 1
    assert status_table(result)


def test_other_classes_are_told(damageable: Job, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    result = status.run(damageable.config(f"source.classes={tmp_path}/classes.txt"))
    assert "source.classes: 2 classes here, 0 there" in result.differs


def test_records_that_are_gone_are_told(damageable: Job) -> None:
    commit = damageable.store / f"commits/{part_name('train-0003.tar')}.json"
    kept = commit.read_bytes()
    commit.unlink()
    (damage,) = status.run(damageable.config()).damaged
    assert damage.startswith(f"{damageable.store}/commits: 1 of the records that manifest.json speaks of are gone")
    assert commit.name in damage
    commit.write_bytes(kept)
    (damageable.store / "store.json").unlink()
    result = status.run(damageable.config())
    (damage,) = result.damaged
    assert damage.startswith(f"{damageable.store}/store.json: missing, though 6 parts are committed: finish copying")
    assert not result.complete


def in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def in_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


ODD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no JSON": ("commits/PART.json", lambda path: path.write_text("{"), "not a commit record"),
    "edited": ("commits/PART.json", lambda path: edit(path, "train-0003.tar", "train-0004.tar"), "not a commit record"),
    "another part's": (
        "commits/PART.json",
        lambda path: shutil.copy(path.with_stem(part_name("train-0000.tar")), path),
        f"the commit record of {part_name('train-0000.tar')}",
    ),
    "no sources": ("commits/PART.json", lambda path: rewrite(path, sources=[]), "not a commit record"),
    "no date": ("commits/PART.json", lambda path: rewrite(path, finished="soon"), "not a commit record"),
    "date of no zone": ("commits/PART.json", lambda path: rewrite(path, finished="0001-01-01"), "not a commit"),
    "negative": ("commits/PART.json", lambda path: rewrite(path, written=-1), "not a commit record"),
    "huge": ("commits/PART.json", lambda path: rewrite(path, seen=10**30), "not a commit record"),
    "endless": ("commits/PART.json", lambda path: rewrite(path, seconds={"wall": 1e300}), "not a commit record"),
    "folder": ("commits/PART.json", in_a_folder, "not a commit record"),
    "loop": ("commits/PART.json", in_a_circle, "not a commit record"),
    "rejects cut": ("rejects/PART.*", lambda path: path.write_bytes(path.read_bytes()[:-5]), "a line is no reject"),
    "rejects missing": ("rejects/PART.*", lambda path: path.unlink(), "missing"),
    "rejects in a folder": ("rejects/PART.*", in_a_folder, "no file"),
    "manifest": ("manifest.json", lambda path: path.write_text("[]"), "not a manifest"),
    "manifest in a folder": ("manifest.json", in_a_folder, "not a manifest"),
}
"""A file of a store, what becomes of it, and what is said of it."""


@pytest.mark.parametrize("odd", ODD)
def test_one_odd_file_is_named_and_hides_no_other(damageable: Job, odd: str) -> None:
    pattern, damage, said = ODD[odd]
    (path,) = damageable.store.glob(pattern.replace("PART", part_name("train-0003.tar")))
    damage(path)
    result = status.run(damageable.config())
    (message,) = result.damaged
    assert message.startswith(f"{path}: {said}")
    assert (result.done, result.pending, result.complete) == (6, 0, False)
    assert (result.written, result.rejected) == ((ROWS - 10, 0) if "commits" in pattern else (ROWS, 7))
    assert "all is committed, and some of it is damaged" in status_table(result)
    assert message in status_table(result)


def test_damage_is_status_1(damageable: Job) -> None:
    path = commit_file(damageable, "train-0001.tar")
    path.write_text("{")
    done = vqtok("status", "--json", "--config", damageable.file, folder=damageable.output).wait()
    assert (done.status, done.err) == (1, "")
    assert [message.partition(": ")[0] for message in json.loads(done.out)["damaged"]] == [str(path)]


def test_a_source_that_is_missing_is_a_bad_configuration(job: Job) -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        status.run(job.config("source.shards=nowhere/*.tar", "source.base=null"))


# --- live -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_a_terminal(job: Job, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], "Screen"]]:
    """`vqtok status` on a terminal of 24 lines of 60 columns, and what it has printed there so far."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    command = [sys.executable, "-m", "pipeline", "status", "--config", str(job.file), *options]
    environment = {**os.environ, "COLUMNS": "60", "LINES": "24"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    try:
        yield process, Screen(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


class Screen:
    """What a terminal has been sent."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._text = b""

    def __str__(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 65536):
                self._text += data
        return self._text.decode()


def test_a_live_table_ends_when_the_job_is_complete(damageable: Job) -> None:
    path = commit_file(damageable, "train-0003.tar")
    data = path.read_bytes()
    path.unlink()
    with on_a_terminal(damageable, "--watch", "0.1") as (process, screen):
        wait_for(lambda: str(screen).count("5 of 6 source shards") >= 3)
        path.write_bytes(data)
        wait_for(lambda: bool(str(screen)) and process.poll() is not None)  # a full terminal would hold it up
        assert process.returncode == 0
        text = str(screen)
    first, *later = [look.split("\r\n") for look in text.split("\x1b[J")[:-1]]
    assert first[0] == "\r" + str(damageable.store)[:58] + "…\x1b[K"  # longer than the terminal is wide
    up = len(first) - 1
    assert all(look[0].startswith(f"\x1b[{up}A\r") for look in later[:2])
    last = [line.removesuffix("\x1b[K") for line in later[-1]]
    assert "6 of 6 source shards are committed" in last
    assert "complete" in last
    assert all(len(line) <= 59 for line in last[1:])


def test_ctrl_c_leaves_quietly(job: Job) -> None:
    with on_a_terminal(job, "-w") as (process, screen):
        wait_for(lambda: "no store yet" in str(screen))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "Abort" not in str(screen)
        assert "Traceback" not in str(screen)


def test_a_program_may_watch_in_lines_of_json(damageable: Job) -> None:
    path = commit_file(damageable, "train-0003.tar")
    data = path.read_bytes()
    path.unlink()
    child = vqtok("status", "-w", "0.1", "--json", "--config", damageable.file, folder=damageable.output)
    out = damageable.output / "out-0"
    wait_for(lambda: out.read_text().count("\n") >= 2)
    path.write_bytes(b"{")  # as a look might find it on a file system with a moment's trouble
    time.sleep(0.5)
    path.write_bytes(data)
    done = child.wait()
    assert done.status == 0
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [answers[0]["done"], answers[-1]["done"]] == [5, 6]
    assert [answer["complete"] for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert any(f"{path}: not a commit record" in message for answer in answers for message in answer["damaged"])


def test_in_a_log_each_look_has_its_time(damageable: Job) -> None:
    path = commit_file(damageable, "train-0003.tar")
    data = path.read_bytes()
    path.unlink()
    began = datetime.now(UTC).replace(microsecond=0)
    child = vqtok("status", "-w", "1.5", "--config", damageable.file, folder=damageable.output)
    wait_for(lambda: "nobody is at work" in (damageable.output / "out-0").read_text())
    path.write_bytes(data)
    looks = child.wait().out.split(f"\n{damageable.store}\n")
    times = [datetime.strptime(look.splitlines()[-1], "%Y-%m-%d %H:%M:%S %z") for look in looks[:-1]]
    assert len(times) > 1
    assert began <= times[0] < times[-1] <= datetime.now(UTC)
    assert began <= datetime.fromisoformat(str(asked(damageable)["time"])) <= datetime.now(UTC)


@pytest.mark.parametrize("seconds", ["0", "0.05", "soon"])
def test_a_bad_interval_is_status_2(job: Job, seconds: str) -> None:
    done = vqtok("status", f"--watch={seconds}", "--config", job.file, folder=job.output).wait()
    assert (done.status, done.out) == (2, "")
    assert "--watch" in done.err
