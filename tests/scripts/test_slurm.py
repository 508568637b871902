"""The Slurm recipes in a real Slurm, with tasks that are killed, run out of time, or lose their node."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from fixtures_cluster import Slurm, claimed_by, make_long_job
from fixtures_store import Job, wait_for
from support import ROOT

pytest_plugins = ["fixtures_store", "fixtures_cluster"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ARRAY = str(ROOT / "scripts/cluster/slurm_array.sbatch")
TRAIN = str(ROOT / "scripts/cluster/slurm_train.sbatch")


def submit(slurm: Slurm, job: Job, *options: str) -> str:
    """Submit the recipe; the number of the array."""
    return slurm.run("sbatch", "--parsable", "--cpus-per-task=1", *options, ARRAY, CONFIG=str(job.file))


def variables_of(pid: int) -> dict[str, str]:
    """The environment of a process; empty when it has ended."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def process_at_work(job: Job, commits: int = 0, besides: str = "") -> tuple[int, str, str]:
    """A process that holds a claim once so many source shards are committed; its array task, and its node."""
    found: list[tuple[int, str, str]] = []

    def look() -> bool:
        if len(job.listing("commits")) >= commits:
            for pid in claimed_by(job):
                if variables := variables_of(pid):
                    task = f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"
                    found.extend([(pid, task, variables["SLURMD_NODENAME"])] * (task != besides))
        return bool(found)

    wait_for(look, 120)
    return found[0]


def end_of(slurm: Slurm, array: str) -> dict[str, tuple[str, int]]:
    """How each task ended, and how often it was started again."""
    tasks = slurm.wait(array, 200)
    return {task["ArrayTaskId"]: (task["JobState"], int(task["Restarts"])) for task in tasks}


def test_an_array_with_a_killed_and_a_stopped_task_ends_as_one_undisturbed_process(
    slurm: Slurm, long_job: Job, long_digest: str
) -> None:
    array = submit(slurm, long_job, "--array=0-2")
    verify = slurm.run(
        *("sbatch", "--parsable", f"--dependency=afterok:{array}", "--output=verify.json", "--error=verify.log"),
        *("--wrap", '"$BIN/vqtok" verify --json --config "$CONFIG"'),
        CONFIG=str(long_job.file),
    )

    pid, killed, _ = process_at_work(long_job, commits=3)
    os.kill(pid, signal.SIGKILL)
    pid, stopped, _ = process_at_work(long_job, commits=5, besides=killed)
    slurm.run("scancel", "--batch", "--signal=USR1", stopped)  # as Slurm does before the time limit
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    assert pid not in claimed_by(long_job, running_only=False)  # it has released what it held

    ends = end_of(slurm, array)
    assert len(ends) == 3
    assert {state for state, _ in ends.values()} == {"COMPLETED"}, slurm.logs()
    restarts = {f"{array}_{task}": count for task, (_, count) in ends.items()}
    assert restarts == {task: int(task in (killed, stopped)) for task in restarts}, slurm.logs()

    [checked] = slurm.wait(verify, 100)
    assert checked["JobState"] == "COMPLETED"
    result = json.loads((slurm.folder / "verify.json").read_text())
    assert (result["problems"], result["content_digest"]) == ([], long_digest)
    assert long_job.listing("claims") == long_job.listing("staging") == []


def test_a_task_that_loses_its_node_is_started_again_by_slurm(slurm: Slurm, long_job: Job, long_digest: str) -> None:
    array = submit(slurm, long_job, "--array=0-1", "--exclusive")  # one on each node
    _, _, node = process_at_work(long_job, commits=2)
    slurm.fail_node(node)
    try:
        wait_for(lambda: slurm.run("sinfo", "--noheader", f"--nodes={node}", "--format=%T") == "down*", 60)
    finally:
        slurm.start_node(node)
    ends = end_of(slurm, array)
    assert sorted(ends.values()) == [("COMPLETED", 0), ("COMPLETED", 1)], slurm.logs()
    assert long_job.digest == long_digest


def test_a_cancelled_task_releases_its_claims_and_does_not_come_back(slurm: Slurm, long_job: Job) -> None:
    array = submit(slurm, long_job, "--array=0")
    process_at_work(long_job, commits=1)
    slurm.run("scancel", array)
    assert end_of(slurm, array) == {"0": ("CANCELLED", 0)}
    assert long_job.listing("claims") == []


def test_a_task_out_of_time_goes_on_in_another_turn(
    slurm: Slurm, tmp_path: Path, long_collection: Path, tokenizer_folder: Path
) -> None:
    job, undisturbed = (
        make_long_job(tmp_path / name, long_collection, tokenizer_folder, size=256) for name in ("job", "undisturbed")
    )
    # Slurm looks at the time every 30 s, so it gives its signal after 10 to 40 s; the work takes longer than that.
    array = submit(slurm, job, "--array=0", "--time=1", "--signal=B:USR1@20")
    wait_for(lambda: slurm.jobs(array)[0]["Restarts"] == "1", 100)
    assert job.listing("claims") == []
    slurm.run("scontrol", "update", f"JobId={array}_0", "TimeLimit=10")
    assert end_of(slurm, array) == {"0": ("COMPLETED", 1)}, slurm.logs()
    assert undisturbed.run().complete
    assert job.digest == undisturbed.digest


def test_training_on_two_nodes_goes_on_from_its_checkpoint(slurm: Slurm, tmp_path: Path, long_collection: Path) -> None:
    train = {
        "model": {"vocab_size": 32, "embedding_dim": 4, "hidden_dim": 8, "final_relu": False},
        "steps": 60,
        "batch_size": 4,
        "warmup_steps": 2,
        "log_every": 10,
        "checkpoint_every": 10,
    }
    job = make_long_job(tmp_path / "job", long_collection, tmp_path / "tokenizer", size=32)
    job.file.write_text(yaml.safe_dump({**yaml.safe_load(job.file.read_text()), "train": train}))
    number = slurm.run(
        *("sbatch", "--parsable", "--gpus-per-node=1", "--cpus-per-task=1", TRAIN),
        CONFIG=str(job.file),
        HEAD="127.0.0.1",  # no name server knows the pretended nodes
    )
    wait_for(lambda: any((job.tokenizer / "checkpoints").glob("step-*")), 200)
    slurm.run("scancel", "--batch", "--signal=USR1", number)
    [ended] = slurm.wait(number, 300)
    assert (ended["JobState"], ended["Restarts"], ended["NumNodes"]) == ("COMPLETED", "1", "2"), slurm.logs()
    assert "60 steps" in slurm.logs()
    lines = map(json.loads, (job.tokenizer / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["kind"] == "train"] == [10, 20, 30, 40, 50, 60]
