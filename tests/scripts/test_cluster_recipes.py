"""The recipes of scripts/cluster as they are, on this machine instead of several."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures_cluster import claimed_by, environment, make_long_job
from fixtures_store import Job, wait_for
from support import ROOT, free_port

pytest_plugins = ["fixtures_store", "fixtures_cluster"]

RECIPES = ROOT / "scripts" / "cluster"
ARRAY_TASK = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_JOB_ID": "9"}
"""What Slurm sets for a task of an array, besides SLURM_ARRAY_TASK_ID."""


def start(recipe: str, *arguments: str | Path, folder: Path, **variables: str) -> "subprocess.Popen[str]":
    """A recipe in a process group of its own, run from `folder`."""
    return subprocess.Popen(
        [str(RECIPES / recipe), *map(str, arguments)],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextmanager
def all_ended(*processes: "subprocess.Popen[str]") -> Iterator[None]:
    """No process group outlives the test."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def outputs(*processes: "subprocess.Popen[str]", timeout_s: float = 150) -> list[str]:
    """What recipes print; they must end well."""
    with all_ended(*processes):
        printed = [process.communicate(timeout=timeout_s)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(printed)
    return printed


def programs(folder: Path, **scripts: str) -> str:
    """A folder of shell scripts by name, for PATH or BIN."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.fixture
def scontrol(tmp_path: Path) -> Path:
    """The folder of a `scontrol` that notes what it is asked for in the file `asked`."""
    folder = tmp_path / "slurm"
    programs(folder, scontrol=f'echo "$@" >> {folder}/asked')
    return folder


def asked(scontrol: Path) -> str:
    path = scontrol / "asked"
    return path.read_text().strip() if path.exists() else ""


def start_task(scontrol: Path, task: int, **variables: str) -> "subprocess.Popen[str]":
    """The script of a Slurm array with the environment that Slurm gives to a task."""
    variables = {
        "PATH": f"{scontrol}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": str(task),
        **ARRAY_TASK,
        **variables,
    }
    return start("slurm_array.sbatch", folder=scontrol.parent, **variables)


@pytest.mark.slow
def test_a_killed_array_task_asks_for_another_turn_and_nothing_is_lost(
    scontrol: Path, tmp_path: Path, long_collection: Path, tokenizer_folder: Path
) -> None:
    job, undisturbed = (
        make_long_job(tmp_path / name, long_collection, tokenizer_folder, source_shards=8)
        for name in ("job", "undisturbed")
    )
    assert undisturbed.run().complete
    tasks = [start_task(scontrol, task, CONFIG=str(job.file)) for task in range(2)]
    with all_ended(*tasks):
        wait_for(lambda: bool(claimed_by(job)))
        os.kill(claimed_by(job)[0], signal.SIGKILL)
        wait_for(lambda: any(task.poll() is not None for task in tasks))
        [killed] = [number for number, task in enumerate(tasks) if task.returncode == 137]
        assert asked(scontrol) == f"requeue 7_{killed}"
        outputs(tasks[1 - killed], start_task(scontrol, killed, CONFIG=str(job.file), SLURM_RESTART_COUNT="1"))
    assert asked(scontrol) == f"requeue 7_{killed}"
    assert job.digest == undisturbed.digest


@pytest.mark.parametrize(
    ("ending", "restarts", "status", "again"),
    [
        ("exit 0", "", 0, False),
        ("exit 1", "", 1, False),  # something stays pending: for people
        ("exit 2", "", 2, False),  # a bad configuration
        ("kill -KILL $$", "", 137, True),
        ("kill -KILL $$", "19", 137, True),
        ("kill -KILL $$", "20", 137, False),
        ("kill -SEGV $$", "", 139, True),
        ("kill -TERM $$", "", 143, False),  # neither the time limit nor a crash: somebody wanted that
        ("exit 137", "", 137, True),  # `vqtok --processes` reports one of its processes so
    ],
)
def test_what_ends_an_array_task_decides_whether_it_starts_again(
    scontrol: Path, tmp_path: Path, ending: str, restarts: str, status: int, again: bool
) -> None:
    task = start_task(scontrol, 3, BIN=programs(tmp_path / "bin", vqtok=ending), SLURM_RESTART_COUNT=restarts)
    task.communicate(timeout=20)
    assert task.returncode == status
    assert asked(scontrol) == ("requeue 7_3" if again else "")


@pytest.mark.parametrize("name", ["USR1", "TERM"])
def test_out_of_time_ends_vqtok_with_sigterm_and_a_plain_sigterm_leaves_that_to_slurm(
    scontrol: Path, tmp_path: Path, name: str
) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'sleep 0.3; exit 143' TERM; touch {ready}; while :; do sleep 0.1; done"
    task = start_task(scontrol, 3, BIN=programs(tmp_path / "bin", vqtok=script))
    with all_ended(task):
        wait_for(ready.exists)
        if name == "USR1":
            task.send_signal(signal.SIGUSR1)  # to the shell alone
        else:
            os.killpg(task.pid, signal.SIGTERM)  # to all processes, as Slurm does
        task.wait(20)
    assert task.returncode == 143
    assert asked(scontrol) == ("requeue 7_3" if name == "USR1" else "")


@pytest.mark.slow
def test_hosts_of_a_list_share_the_work(job: Job, finished: Job, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("# two of them\nhost0\n\nhost1 # with a remark\n")
    # In place of ssh: the same command in a shell of this machine.
    ssh = programs(tmp_path / "bin", ssh='echo "on $1: $2"; cd / && exec sh -c "$2"')
    run = start("start_n.sh", hosts, folder=tmp_path, SSH=f"{ssh}/ssh", CONFIG=os.path.relpath(job.file, tmp_path))
    [printed] = outputs(run)
    assert "host0: on host0: cd " in printed
    assert f"host1: {job.store}: 6 of 6 source shards are committed" in printed
    assert job.digest == finished.digest


@pytest.mark.parametrize("text", [b"host0\nhost1\n", b"# two of them\nhost0 # old\n\nhost1", b"host0\r\n\r\nhost1\r\n"])
def test_every_host_of_a_list_starts_the_command(tmp_path: Path, text: bytes) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_bytes(text)
    tools = programs(tmp_path / "bin", ssh='cd / && exec sh -c "$2"', vqtok='echo "$PWD: $@"')
    run = start("start_n.sh", hosts, folder=tmp_path, SSH=f"{tools}/ssh", CONFIG="job.yaml", BIN=tools)
    [printed] = outputs(run)
    assert sorted(printed.splitlines()) == [
        f"host{number}: {tmp_path}: tokenize --no-progress --config job.yaml --processes 1" for number in range(2)
    ]


@pytest.mark.parametrize(("recipe", "program"), [("slurm_array", "vqtok"), ("slurm_train", "torchrun")])
def test_a_job_from_another_folder_is_told_what_is_missing(tmp_path: Path, recipe: str, program: str) -> None:
    tools = programs(tmp_path / "slurm", scontrol="echo node0")
    run = start(f"{recipe}.sbatch", folder=tmp_path, BIN=".venv/bin", PATH=f"{tools}:{os.environ['PATH']}")
    with all_ended(run):
        printed, _ = run.communicate(timeout=20)
    said = f"{recipe}: no .venv/bin/{program} in {tmp_path}: run sbatch in the repository, or set BIN\n"
    assert (run.returncode, printed) == (2, said)


@pytest.mark.parametrize("text", [None, "", "# none\n"])
def test_a_list_without_hosts_is_no_success(tmp_path: Path, text: str | None) -> None:
    hosts = tmp_path / "hosts.txt"
    if text is not None:
        hosts.write_text(text)
    run = start("start_n.sh", hosts, folder=tmp_path)
    with all_ended(run):
        printed, _ = run.communicate(timeout=20)
    assert (run.returncode, f"start_n: {hosts} names no host" in printed) == (2, True)


def test_a_host_that_cannot_be_reached_shows_in_the_exit_status(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("good\nbad\n")
    ssh = programs(tmp_path / "bin", ssh='[ "$1" = good ] || { echo "no route"; exit 255; }')
    run = start("start_n.sh", hosts, folder=tmp_path, SSH=f"{ssh}/ssh")
    with all_ended(run):
        printed, _ = run.communicate(timeout=20)
    assert (run.returncode, printed) == (255, "bad: no route\n")


def machines(recipe: str, job: Job, folder: Path, processes: int, **variables: str) -> list["subprocess.Popen[str]"]:
    """A recipe for two machines, started twice on this one."""
    common = {"CONFIG": str(job.file), "HEAD": "127.0.0.1", "PORT": free_port(), "PROCESSES": str(processes)}
    return [start(recipe, folder=folder, NODE_RANK=str(rank), **common, **variables) for rank in range(2)]


@pytest.mark.slow
def test_torchrun_on_two_machines(job: Job, finished: Job, tmp_path: Path) -> None:
    first, second = outputs(*machines("torchrun.sh", job, tmp_path, processes=1))
    assert "6 of 6 source shards are committed" in first  # one of all ranks sums up
    assert "committed" not in second
    assert job.digest == finished.digest


@pytest.mark.slow
def test_accelerate_on_two_machines(job: Job, finished: Job, tmp_path: Path) -> None:
    first, second = outputs(*machines("accelerate.sh", job, tmp_path, processes=1))
    assert "6 of 6 source shards are committed" in first  # one of all ranks sums up
    assert "committed" not in second
    assert job.digest == finished.digest


@pytest.mark.slow
def test_torchrun_starts_all_ranks_again_when_one_is_killed(long_job: Job, long_digest: str, tmp_path: Path) -> None:
    runs = machines("torchrun.sh", long_job, tmp_path, processes=1)
    with all_ended(*runs):
        wait_for(lambda: len(long_job.listing("commits")) > 2 and bool(claimed_by(long_job)))
        os.kill(claimed_by(long_job)[0], signal.SIGKILL)
        outputs(*runs)
    assert long_job.digest == long_digest
