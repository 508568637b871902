"""What becomes of a source shard that failed, of a process that hangs, and of one whose GPU fails."""

import os
import re
import time
from pathlib import Path

import pytest
import torch
from fixtures_store import COLLECTION, Child, Job, make_job
from shard_work import Accelerator

from pipeline.cli import main
from pipeline.config import load_config
from pipeline.jobs.work import machine
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.source.images.transform import ImageTransform

pytest_plugins = ["fixtures_store"]


def test_a_process_with_a_hung_read_ends_and_says_where(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """The end of one command's output never comes; the other's can be committed."""
    ends = ("", f"; echo $$ >{tmp_path}/pid; sleep 600")
    good, hung = (f"pipe:cat {collection}/train-0001.tar{end}" for end in ends)
    changes = {"source.shards": [good, hung], "source.base": None, "source.allow_pipe": True}
    job = make_job(tmp_path, tmp_path, tokenizer_folder, {**changes, "tokenize.stall_timeout": 4})
    done = job.start().wait(timeout_s=60)
    assert done.status == 1
    assert re.search(r"vqtok: read .*: has not ended for \d+ s \(tokenize.stall_timeout\); this process ends", done.err)
    assert "stdout.read" in done.err  # where in Python
    assert has_ended(int((tmp_path / "pid").read_text()))  # the command, too
    assert job.listing("claims") == []
    (failure,) = job.listing("failures")
    assert job.start("--set", f"source.shards=['{good}']").wait().status == 0
    (commit,) = job.commits.values()
    assert failure != f"{commit['part']}.json"


def has_ended(pid: int) -> bool:
    """Whether a process ends within some seconds; what nobody has waited for yet counts as ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


class _OnGpu:
    """What is freed on a GPU that has failed: torch ends the process then."""

    def __del__(self) -> None:
        os.abort()


def tokenize_until_the_gpu_fails(file: Path, stage: str, message: str) -> None:
    """`vqtok tokenize`, for which the CPU is a GPU that fails in a stage once a source shard is committed."""
    machine.BatchEncoder = Accelerator  # type: ignore[attr-defined,misc]
    store = Path(load_config(file).tokenize.store)
    where, name = {
        "encode": (NetworkTokenizer, "encode"),
        "decode": (ImageTransform, "many"),
        "submit": (BatchEncoder, "submit"),
    }[stage]
    function = getattr(where, name)

    def fail(*arguments: object, **options: object) -> object:
        if not list(store.glob("commits/*.json")):
            return function(*arguments, **options)
        memory = _OnGpu()  # noqa: F841  # which the exception holds
        raise (RuntimeError if "cuDNN" in message else torch.AcceleratorError)(message)

    setattr(where, name, fail)
    main(["tokenize", "--no-progress", "--config", str(file), "--set", "tokenize.batch_size=2"])


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("encode", "CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
        ("decode", "CUDA error: an illegal memory access was encountered"),
        ("submit", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_gpu_that_fails_ends_the_process_which_gives_back_what_it_has_claimed(
    stage: str, message: str, job: Job
) -> None:
    done = Child(tokenize_until_the_gpu_fails, job.file, stage, message, folder=job.output).wait()
    first = message.partition("\n")[0]
    (line,) = [line for line in done.err.splitlines() if "GPU" in line]
    assert re.fullmatch(rf"vqtok: \S+\.tar: {re.escape(first)}: the GPU is of no more use to this process, .*", line)
    assert (done.status, "Traceback" in done.err) == (1, False)
    assert job.listing("claims") == []
    assert len(job.listing("failures")) == 1
    assert 1 <= len(job.commits) < len(COLLECTION)
    for path, record in job.commits.items():
        assert record["written"] + record["rejected"] == len(COLLECTION[path])
    assert job.run("tokenize.batch_size=2").complete
    assert job.listing("failures") == []
