"""`pipe:` sources: the output of commands becomes rows, and the commands themselves stay out of the store."""

import json
import signal
from pathlib import Path

import pytest
from fixtures_store import COLLECTION, ROWS, Job, all_files, make_job, vqtok, wait_for

from pipeline.errors import ConfigError
from pipeline.jobs.reporting import job as report
from pipeline.jobs.status import job as status
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store"]

SECRET = "s3cr3t"
PLAIN = "train-{0000..0003}.tar"


def pipe_job(folder: Path, tokenizer: Path, *commands: str, allow: bool = True) -> Job:
    shards = [f"pipe:{command}" for command in commands]
    changes = {"source.shards": shards, "source.base": None, "source.allow_pipe": allow}
    return make_job(folder, folder, tokenizer, changes)


@pytest.fixture
def piped(collection: Path, tokenizer_folder: Path, tmp_path: Path) -> Job:
    """All of the collection through commands that hold a secret."""
    here = f": {SECRET}; cat {collection}"
    return pipe_job(tmp_path / "job", tokenizer_folder, f"{here}/{PLAIN}", f"{here}/more/train-000{{0,4}}.tar")


def rows(job: Job) -> dict[str, list[int]]:
    """Tokens by key."""
    store = TokenStore(job.store)
    tokens = [block.tolist() for block in store.read(slice(None)).idx_Bl]
    return {key: [token for block in tokens for token in block[row]] for row, key in enumerate(store.keys)}


def assert_no_secret(job: Job, *texts: str) -> None:
    for path, data in all_files(job.store).items():
        assert SECRET.encode() not in data, path
        assert SECRET not in path
    for text in texts:
        assert SECRET not in text


def test_commands_give_the_rows_of_the_files(piped: Job, finished: Job) -> None:
    done = piped.start().wait()
    assert (done.status, done.err) == (0, "")
    assert len(rows(piped)) == ROWS
    assert rows(piped) == rows(finished)
    digests = {path.rpartition("/")[2]: record["sources"][0]["sha256"] for path, record in piped.commits.items()}
    assert digests["train-0003.tar"] == finished.commits["train-0003.tar"]["sources"][0]["sha256"]
    assert_no_secret(piped, done.out)


def test_a_second_run_has_nothing_to_do_and_starts_no_command(collection: Path, finished: Job, tmp_path: Path) -> None:
    job = pipe_job(tmp_path / "job", finished.tokenizer, f"echo >> {tmp_path}/calls; cat {collection}/{PLAIN}")
    assert job.run().complete
    assert (tmp_path / "calls").read_text() == "\n" * 4
    done = job.start().wait()
    assert (done.status, done.out) == (0, f"{job.store}: all 4 source shards are committed; nothing to do\n")
    assert (tmp_path / "calls").read_text() == "\n" * 4


def test_every_command_works_with_sources_of_unknown_size(piped: Job) -> None:
    dry = vqtok("tokenize", "--dry-run", "--config", piped.file, folder=piped.output).wait()
    assert (dry.status, dry.out.startswith(f"{piped.store}: 6 of 6 source shards are pending")) == (0, True)
    assert not piped.store.exists()
    before = status.run(piped.config())
    assert (before.planned, before.pending, before.eta_seconds) == (6, 6, None)
    assert piped.run("source.exclude=[]").complete
    found = json.loads(vqtok("status", "--json", "--config", piped.file, folder=piped.output).wait().out)
    assert (found["done"], found["complete"], found["written"]) == (6, True, ROWS)
    for options in (["--quick"], []):
        done = vqtok("verify", *options, "--config", piped.file, folder=piped.output).wait()
        assert (done.status, done.err) == (0, ""), done.out
        assert done.out.strip().endswith("check)")
    made = report.run(piped.config())
    assert_no_secret(piped, str(made), dry.out)


def test_without_permission_no_command_runs(collection: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    command = f"touch {tmp_path}/ran; cat {collection}/{PLAIN}"
    job = pipe_job(tmp_path / "job", tokenizer_folder, command, allow=False)
    with pytest.raises(ConfigError, match=r"source\.allow_pipe=true"):
        job.run()
    for words in (["tokenize"], ["tokenize", "--dry-run"], ["status"], ["verify"]):
        done = vqtok(*words, "--config", job.file, folder=job.output).wait()
        assert (done.status, "source.allow_pipe" in done.err, "Traceback" in done.err) == (2, True, False)
    assert not (tmp_path / "ran").exists()
    assert not job.store.exists()


FAILURES = {
    "exit 3": "exit status 3",
    "cat TAR; exit 3": "exit status 3",
    "no-such-command-here": "exit status 127",
    "true": "the file is empty",
    "head -c 3000 TAR": "cut off",
    "cat TAR TAR; yes": "more data follows",
    "cat REJECTS": "7 of 17 samples rejected",
}


def test_commands_fail_alone_and_their_text_is_in_no_message(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    tars = {"TAR": str(collection / "train-0000.tar"), "REJECTS": str(collection / "train-0003.tar")}
    commands = list(FAILURES)
    for name, path in tars.items():
        commands = [command.replace(name, path) for command in commands]
    good = [f": {SECRET}; cat {collection}/{PLAIN.replace('0003', '0002')}"]
    job = pipe_job(tmp_path / "job", tokenizer_folder, *(f": {SECRET}; {c}" for c in commands), *good)
    done = job.start("--set", "tokenize.max_reject_rate=0.1").wait()
    assert (done.status, done.out, "Traceback" in done.err) == (1, "", False)
    assert "3 of 10 source shards are committed" in done.err
    assert len(job.commits) == 3
    failed = json.loads(vqtok("status", "--json", "--config", job.file, folder=job.output).wait().out)["failed"]
    reasons = [entry["reason"] for entry in failed]
    assert len(reasons) == len(FAILURES)
    for reason in FAILURES.values():
        assert any(reason in found for found in reasons), reason
        assert reason in done.err
    own = [line for line in done.err.splitlines() if "stays pending" in line]
    assert_no_secret(job, *own, *reasons)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_job_that_waits_for_a_command_can_be_stopped(
    number: int, collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    command = f"cat {collection}/train-0001.tar; echo $$ > {tmp_path}/pid; sleep 1000"
    job = pipe_job(tmp_path / "job", tokenizer_folder, command)
    child = job.start()
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    assert len(job.listing("claims")) == 1
    child.signal(number)
    assert child.wait(timeout_s=30).status == 128 + number
    assert job.listing("claims") == job.listing("commits") == []
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.parametrize("words", [["report"], ["verify"], ["verify", "--rate", "1"]], ids=" ".join)
def test_every_other_wait_for_a_command_can_be_ended(
    words: list[str], collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    hang, calls, pid = tmp_path / "hang", tmp_path / "calls", tmp_path / "pid"
    hangs_at = 2 if "--rate" in words else 1
    command = (
        f"if [ -e {hang} ]; then echo >> {calls}; if [ $(wc -l < {calls}) = {hangs_at} ]; then "
        f"echo $$ > {pid}; sleep 1000; fi; fi; cat {collection}/train-0000.tar"
    )
    job = pipe_job(tmp_path / "job", tokenizer_folder, command)
    assert job.run().complete
    hang.touch()
    child = vqtok(*words, "--config", job.file, folder=job.output)
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    child.signal(signal.SIGINT)
    assert child.wait(timeout_s=30).status == 130
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_names_of_commands_are_those_of_the_tars_they_name(piped: Job) -> None:
    assert piped.run().complete
    assert sorted(path.rpartition("/")[2] for path in piped.commits) == sorted(
        path.rpartition("/")[2] for path in COLLECTION
    )
