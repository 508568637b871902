"""Training that is told to stop, in whatever moment, and goes on as if nothing had been."""

import contextlib
import ctypes
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from fixtures_store import Child, Done, Halt, cold, wait_for
from fixtures_training import TrainingJob
from support import free_port, sampled, vqtok_script

pytest_plugins = ["fixtures_store", "fixtures_training"]

STOPPED = re.compile(r"vqtok: (\w+): stopped after step (\d+), which is saved; the same command goes on from there")


def assert_saved(job: TrainingJob, done: Done, signum: int, ended: int | None = None) -> int:
    """It ended as a signal ends a process, with one line and a checkpoint of its last step; returns the step."""
    assert done.status == (128 + signum if ended is None else ended), done.err
    [(name, step)] = STOPPED.findall(done.err)
    assert name == signal.Signals(signum).name
    assert job.checkpoints[-1] == int(step) < 24
    assert "Traceback" not in done.err
    assert not (job.tokenizer / "model.safetensors").exists()
    assert list(job.tokenizer.rglob(".tmp-*")) == []
    return int(step)


def assert_goes_on(job: TrainingJob, trained: TrainingJob, step: int) -> None:
    done = job.run()
    assert done.status == 0, done.err
    assert f"resumed from the checkpoint of step {step}" in done.err
    assert job.weights == trained.weights
    assert job.lines("held-out") == trained.lines("held-out")


@pytest.mark.parametrize("name", sampled("SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP"))
def test_a_signal_saves_and_the_same_command_goes_on_to_the_same_bits(
    name: str, untrained: TrainingJob, trained: TrainingJob
) -> None:
    number = signal.Signals[name]
    untrained.write(log_every=1)
    count = {"SIGTERM": 5, "SIGUSR1": 8, "SIGINT": 10, "SIGHUP": 14}[name]  # lines of metrics: some at a checkpoint
    done = untrained.start(halt=Halt("open", "metrics.jsonl", count, number)).wait()
    assert_goes_on(untrained, trained, assert_saved(untrained, done, number))


def in_a_group(arguments: list[str]) -> None:
    os.setpgid(0, 0)
    sys.argv = ["vqtok", *arguments]
    from pipeline.cli import main

    main()


def processes_of(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", sampled(signal.SIGTERM, signal.SIGINT))
def test_worker_processes_go_quietly_with_their_parent(
    number: int, untrained: TrainingJob, trained: TrainingJob
) -> None:
    """Of a whole process group: by a terminal, by Slurm."""
    untrained.write(workers=2, log_every=1, steps=10_000)
    child = Child(in_a_group, ["train", "--config", str(untrained.file)], folder=untrained.folder)
    group = child.pid
    try:
        wait_for(lambda: (untrained.tokenizer / "checkpoints/step-000006").exists(), 200)
        assert len(processes_of(group)) >= 3
        os.killpg(group, number)
        done = child.wait()
    except BaseException:
        os.killpg(group, signal.SIGKILL)
        raise
    assert done.status == 128 + number, done.err
    assert len(STOPPED.findall(done.err)) == 1
    assert not re.search("Traceback|Error|Terminated|Interrupt", done.err), done.err
    wait_for(lambda: processes_of(group) == [], 20)


def stuck_after_a_signal(arguments: list[str]) -> None:
    """`vqtok`, of which the main thread is told to stop in the first step and never comes out of it."""
    from pipeline.cli import main
    from pipeline.jobs.training.stepper import Stepper

    def step(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        print("stuck", flush=True)
        while True:
            ctypes.CDLL(None).sleep(1000)  # as in a call that waits for other processes

    Stepper.step = step  # type: ignore[method-assign]
    sys.argv = ["vqtok", *arguments]
    main()


def test_a_second_signal_ends_at_once(untrained: TrainingJob) -> None:
    child = Child(stuck_after_a_signal, ["train", "--config", str(untrained.file)], folder=untrained.folder)
    wait_for(lambda: "stuck" in child.said)
    time.sleep(1)
    assert child.running
    child.signal(signal.SIGINT)
    done = child.wait(timeout_s=10)
    assert done.status == 128 + signal.SIGINT
    assert re.search("vqtok: SIGINT: ended at once; the same command goes on from the newest checkpoint", done.err)


@pytest.mark.parametrize("fragment", sampled("heldout.tar", "job.yaml", ".lock"))
def test_a_signal_before_the_first_step_ends_at_once(fragment: str, untrained: TrainingJob) -> None:
    done = untrained.start(halt=Halt("open", fragment, 1, signal.SIGTERM)).wait()
    assert done.status in (143, -signal.SIGTERM), done.err
    assert "Traceback" not in done.err
    assert ("ended at once" in done.err) == (fragment != "job.yaml")  # by the system, before vqtok knows what to do
    assert untrained.checkpoints == []


def test_a_signal_after_the_last_step_says_that_the_tokenizer_is_complete(
    finished_training: TrainingJob, trained: TrainingJob
) -> None:
    for name in ("config.json", "model.safetensors"):
        (finished_training.tokenizer / name).unlink()
    done = finished_training.start(halt=Halt("open", "model.safetensors", 3, signal.SIGTERM)).wait()
    assert done.status == 143, done.err
    assert re.search(r"vqtok: SIGTERM: came after the last step; the tokenizer in .* is complete\n", done.err), done.err
    assert finished_training.weights == trained.weights


def test_run_does_not_tokenize_with_what_was_interrupted(untrained: TrainingJob) -> None:
    untrained.write(log_every=1)
    done = untrained.start("run", halt=Halt("open", "metrics.jsonl", 6, signal.SIGTERM)).wait()
    assert_saved(untrained, done, signal.SIGTERM)
    assert not (untrained.folder / "store").exists()


# --- several processes --------------------------------------------------------------------------------------


def start_two(job: TrainingJob, *halts: Halt) -> list[Child]:
    """Two ranks as torchrun starts them; `halts` are those of the second."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    places = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [job.start(environment=place, halt=halts if rank else ()) for rank, place in enumerate(places)]


@pytest.mark.slow
def test_all_ranks_save_the_same_step_when_one_is_told_to_stop(images: Path, tmp_path: Path) -> None:
    jobs = [TrainingJob(tmp_path / name, images).write(batch_size=2) for name in ("straight", "stopped")]
    straight, stopped = jobs
    assert [child.wait().status for child in start_two(straight)] == [0, 0]

    # The second rank opens no metrics. A file is opened in two calls, and each is looked at before the first step.
    ranks = start_two(stopped, Halt("open", "train-", 12, signal.SIGUSR1))
    done = [child.wait() for child in ranks]
    assert [one.status for one in done] == [138, 138], [one.err for one in done]
    assert_saved(stopped, done[0], signal.SIGUSR1)
    assert "stopped" not in done[1].err
    done = [child.wait() for child in start_two(stopped)]
    assert [one.status for one in done] == [0, 0], [one.err for one in done]
    assert stopped.weights == straight.weights


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_torchrun_hands_a_signal_on_and_waits_for_the_save(number: signal.Signals, untrained: TrainingJob) -> None:
    untrained.write(steps=10_000)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    words += ["--no-python", str(vqtok_script()), "train", "--config", str(untrained.file)]
    saved = untrained.tokenizer / "checkpoints/step-000006"
    command = (
        f"{' '.join(words)} & p=$!; while ! [ -e {saved} ]; do sleep 0.1; done; kill -{number.name[3:]} $p; wait $p"
    )
    done = cold("bash", "-mc", command)
    assert done.status != 0
    [(name, step)] = STOPPED.findall(done.err)
    assert name == number.name
    assert untrained.checkpoints[-1] == int(step)
