"""Several processes of one job on this machine. (That they share the work is tested with tokenize.)"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import COLLECTION, Child, Job, cold, cold_python, wait_for
from support import start_python, vqtok_script

from pipeline.jobs.work.launch import launch

pytest_plugins = ["fixtures_store"]


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; nothing until it is the program that was asked for."""
    if b"pipeline" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return {}
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(word.decode().split("=", 1) for word in words if b"=" in word)


def launch_and_exit(arguments: list[str], processes: int) -> None:
    sys.exit(launch(arguments, processes))


def launch_and_be_stopped(arguments: list[str], processes: int, signum: int) -> None:
    class StoppedWhileItStarts(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signum)

    subprocess.Popen = StoppedWhileItStarts  # type: ignore[misc]
    sys.exit(launch(arguments, processes))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_process_that_starts_when_the_job_is_stopped_is_stopped_too(tmp_path: Path, signum: signal.Signals) -> None:
    done = Child(launch_and_be_stopped, ["--version"], 2, signum, folder=tmp_path).wait()
    assert (done.status, done.out) == (128 + signum, "")


SLEEPING = """
import signal, subprocess, sys
from pipeline.jobs.work.launch import launch
class Other(subprocess.Popen):
    def __init__(self, command, **options):
        # In one piece, for both write at once.
        code = "import time; print('ready' + chr(10), end='', flush=True); time.sleep(60)"
        super().__init__([sys.executable, "-c", code], stderr=subprocess.DEVNULL, **options)
subprocess.Popen = Other
sys.exit(launch([], 2))
"""


def test_a_ctrl_c_that_no_terminal_tells_the_others_of_reaches_them(tmp_path: Path) -> None:
    with start_python(SLEEPING) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        process.send_signal(signal.SIGINT)  # to this one alone, as by a supervisor
        assert process.wait(30) == 130


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["tokenize"], 2)])
def test_the_largest_exit_status_is_that_of_the_job(tmp_path: Path, arguments: list[str], status: int) -> None:
    done = Child(launch_and_exit, arguments, 2, folder=tmp_path).wait()
    assert done.status == status
    assert (done.out + done.err).count("vqtok, version" if status == 0 else "Missing option '--config'") == 2


def test_every_process_finds_its_rank_and_sigterm_reaches_them_all(job: Job) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "tokenize", "--processes", "3", "--config", str(job.file)],
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )
    try:
        wait_for(
            lambda: (
                len(children_of(process)) == 3 and all("RANK" in environment_of(pid) for pid in children_of(process))
            )
        )
        children = children_of(process)
        ranks = [environment_of(pid) for pid in children]
        assert [(r["RANK"], r["LOCAL_RANK"], r["WORLD_SIZE"], r["LOCAL_WORLD_SIZE"]) for r in ranks] == [
            (str(rank), str(rank), "3", "3") for rank in range(3)
        ]
        assert all(int(environment["OMP_NUM_THREADS"]) >= 1 for environment in ranks)
        os.kill(children[1], signal.SIGKILL)  # it takes no other with it
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 143  # the largest: 137 is that of the one that was killed
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


@pytest.mark.slow
def test_what_else_is_called_pipeline_is_not_run(job: Job, tmp_path: Path) -> None:
    """`python -m pipeline` would run it, and its success would pass for ours."""
    (tmp_path / "pipeline.py").write_text("print('another program')")
    (tmp_path / "torch.py").write_text("raise SystemExit('another torch')")
    done = cold(
        vqtok_script(),
        *("tokenize", "--no-progress", "--processes", "2", "--config", job.file),
        folder=tmp_path,
    )
    assert "another" not in done.out + done.err
    assert (done.status, len(job.commits)) == (0, len(COLLECTION)), done.err


NOT_OURS = """
import subprocess, sys
from pipeline.cli import main
class Other(subprocess.Popen):
    def __init__(self, command, **options):
        super().__init__([sys.executable, "-c", ""], **options)
subprocess.Popen = Other
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules)
"""


def test_processes_that_did_not_do_the_work_are_no_success_and_the_launcher_imports_no_torch(job: Job) -> None:
    done = cold_python(NOT_OURS, "tokenize", "--processes", "2", "--config", job.file)
    assert (done.status, done.out) == (1, "False\n")
    assert "vqtok: 2 of 2 processes ended without having tokenized" in done.err


@pytest.mark.slow
def test_what_all_processes_meet_is_told_once(job: Job) -> None:
    done = cold(
        *(sys.executable, "-m", "pipeline", "tokenize", "--processes", "2", "--config", job.file),
        *("--set", "image.size=30"),
    )
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("starting 2 processes: loading PyTorch\nvqtok: image.size: ")
    assert done.err.count("\n") == 2
    assert not job.store.exists()


def test_a_bad_tokenizer_is_told_once_and_at_once(job: Job) -> None:
    done = cold(
        *(sys.executable, "-m", "pipeline", "tokenize", "--processes", "8", "--config", job.file),
        *("--set", "tokenizer.path=nowhere"),
    )
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("vqtok: nowhere: no such tokenizer folder")
    assert done.err.count("\n") == 1
