"""How many processes `--processes auto` starts, and how many have room on several nodes."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from fixtures_store import Job

from pipeline.cli import main
from pipeline.jobs.tokenizing import command
from pipeline.jobs.work import processes
from pipeline.jobs.work.processes import Share, automatic, processes_for, room_on

pytest_plugins = ["fixtures_store"]

# CPU cores, GPUs, pending source shards; processes.
MACHINES = [
    (2, 0, 100, 1),
    (64, 0, 100, 1),  # a process decodes and encodes on all cores
    (2, 1, 100, 1),
    (7, 1, 100, 1),
    (16, 1, 100, 4),
    (128, 1, 100, 4),
    (104, 8, 100, 24),
    (4, 8, 100, 8),  # each GPU has one
    (16, 1, 2, 2),
    (16, 1, 0, 1),  # others have all of them: it waits for those
    (128, 8, 3, 3),
]


@pytest.mark.parametrize(("cores", "devices", "shards", "expected"), MACHINES)
def test_a_process_for_some_cores_and_at_least_one_for_each_gpu(
    cores: int, devices: int, shards: int, expected: int
) -> None:
    assert processes_for(cores, devices, shards) == expected


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "available_cores", lambda: 9)


@pytest.mark.usefixtures("two_gpus")
def test_what_a_launcher_has_started_is_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert automatic(100) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert automatic(100) == 1


def tokenize(job: Job, processes: str) -> Result:
    return CliRunner().invoke(main, ["tokenize", "--config", str(job.file), "--processes", processes])


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("asked", "expected"), [("auto", 2), ("3", 3)])
def test_the_command_starts_them(job: Job, monkeypatch: pytest.MonkeyPatch, asked: str, expected: int) -> None:
    started: list[int] = []

    def start(plan: object, arguments: Sequence[str], count: int, timeout_s: float) -> tuple[int, Any]:
        started.append(count)
        assert "auto" not in arguments
        return 0, None

    monkeypatch.setattr(command, "tokenize_in_processes", start)
    done = tokenize(job, asked)
    assert (done.exit_code, started) == (0, [expected]), done.output
    assert f"starting {expected} processes: loading PyTorch\n" in done.stderr


def test_without_a_gpu_the_command_works_by_itself(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    done = tokenize(job, "auto")
    assert done.exit_code == 0, done.output
    assert "in this process" in done.output


CPU = Share(8, 0)
GPU = Share(32, 4)
HEAD = Share(0, 0)


@pytest.mark.parametrize(
    ("nodes", "asked", "share", "room"),
    [
        ([HEAD, CPU, CPU], {}, Share(1, 0), 16),
        ([HEAD, CPU, GPU], {}, Share(4, 1), 4),  # a node without a GPU has no room
        ([GPU], {"cpus": 16}, Share(16, 1), 2),
        ([GPU], {"gpus": 0.5}, Share(4, 0.5), 8),
        ([GPU], {"gpus": 0.1, "cpus": 0.1}, Share(0.1, 0.1), 40),
        ([Share(7, 0)], {"cpus": 0.07}, Share(0.07, 0), 100),  # 7 / 0.07 is a little less
        ([GPU], {"gpus": 0}, Share(1, 0), 32),
        ([CPU], {"gpus": 1}, Share(4, 1), 0),
        ([CPU], {"cpus": 9}, Share(9, 0), 0),
        ([HEAD], {}, Share(1, 0), 0),
        ([], {}, Share(1, 0), 0),
    ],
)
def test_processes_have_room_where_a_node_has_all_that_each_of_them_wants(
    nodes: list[Share], asked: dict[str, float], share: Share, room: int
) -> None:
    assert room_on(nodes, **asked) == (share, room)


def test_a_share_in_words() -> None:
    assert [str(share) for share in (Share(1, 0), Share(0.5, 0.5), GPU)] == [
        "1 CPU core",
        "0.5 CPU cores and 0.5 GPU",
        "32 CPU cores and 4 GPUs",
    ]
