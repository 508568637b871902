"""Where a process stands among others, without meeting them."""

import dataclasses
import json
import os
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_store import Child
from support import run_python

from pipeline import world as world_module
from pipeline.errors import ConfigError
from pipeline.world import (
    World,
    available_cores,
    cores_of_each,
    cpu_quota,
    current_world,
    describe_unusable_gpu,
    describe_unused_gpus,
    environment_among,
    launched_rank,
)


def look() -> None:
    """Print what this process sees of the world."""
    world = current_world()
    seen = {field.name: getattr(world, field.name) for field in dataclasses.fields(world)}
    del seen["device"]
    everything = {
        **seen,
        "is_main": world.is_main,
        "device_is_ours": isinstance(world.device, torch.device),
        "available": available_cores(),
        "group": torch.distributed.is_initialized(),
        "environment": {name: text for name, text in os.environ.items() if "RANK" in name or "MASTER" in name},
    }
    print(json.dumps(everything))


def look_twice() -> None:
    """As a rank of a launcher, then on one core, with no launcher."""
    look()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        del os.environ[name]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    look()


RANK = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1000"}
NOBODY = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("looks")
    done = Child(look_twice, folder=folder, environment={**RANK, **NOBODY}).wait()
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_one_rank_of_many_waits_for_nobody_and_joins_no_group(looks: list[dict[str, Any]]) -> None:
    seen = looks[0]
    assert [seen[name] for name in ("rank", "size", "local_rank", "local_size")] == [3, 8, 1, 1000]
    assert seen["is_main"] is False
    assert seen["group"] is False
    assert seen["device_is_ours"]
    assert seen["cores"] == 1  # never 0, however many processes share them


def test_the_rank_variables_are_hidden_for_a_moment_only(looks: list[dict[str, Any]]) -> None:
    ranks = {name: text for name, text in RANK.items() if "RANK" in name}
    assert looks[0]["environment"] == {**ranks, **NOBODY}


def test_a_process_alone_is_rank_0_of_1_and_has_all_its_cores(looks: list[dict[str, Any]]) -> None:
    seen = looks[1]
    assert [seen[name] for name in ("rank", "size", "local_rank", "local_size")] == [0, 1, 0, 1]
    assert seen["is_main"] is True
    assert seen["cores"] == seen["available"]
    if hasattr(os, "sched_setaffinity"):
        assert seen["available"] == 1  # the affinity mask counts, not the machine


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("RANK", "one"), ("RANK", "-1"), ("WORLD_SIZE", ""), ("WORLD_SIZE", "0")),
        *(("LOCAL_RANK", "1.5"), ("LOCAL_WORLD_SIZE", "0"), ("LOCAL_WORLD_SIZE", "²")),
    ],
)
def test_what_is_no_rank_is_a_bad_configuration(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    for look in (launched_rank, current_world):
        with pytest.raises(ConfigError, match=f"^{name}: '{text}' in the environment is not a whole.*: unset it$"):
            look()


TASK = {
    "SLURM_STEP_NUM_TASKS": "19",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2),3",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "13",
    "SLURM_LOCALID": "5",
}
"""Of srun: the sixth of eight tasks on the second of three nodes."""


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nobody has launched this process."""
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, (13, 19, 5, 8)),
        ({"SLURM_NODEID": "2", "SLURM_PROCID": "18", "SLURM_LOCALID": "2"}, (18, 19, 2, 3)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 4, 0, 1)),  # of torchrun, or set by hand, in a task of srun
    ],
)
def test_a_task_of_srun_has_a_rank_and_a_device_of_its_own(
    changes: dict[str, str], place: tuple[int, ...], alone: pytest.MonkeyPatch
) -> None:
    for name, text in (TASK | changes).items():
        alone.setenv(name, text)
    world = current_world()
    assert (world.rank, world.size, world.local_rank, world.local_size) == place
    assert launched_rank() == place[:2]


def test_what_srun_sets_is_not_taken_for_tasks_in_a_batch_script(alone: pytest.MonkeyPatch) -> None:
    """Slurm sets the rest of it for the script itself, which is one process whatever --ntasks says."""
    for name, text in TASK.items():
        if "STEP" not in name:
            alone.setenv(name, text)
    assert launched_rank() == (0, 1)


def test_what_is_no_number_of_srun_is_named(alone: pytest.MonkeyPatch) -> None:
    for name, text in {**TASK, "SLURM_STEP_TASKS_PER_NODE": "many"}.items():
        alone.setenv(name, text)
    with pytest.raises(ConfigError, match=r"^SLURM_STEP_TASKS_PER_NODE: 'many' in the environment is not a whole"):
        launched_rank()


@pytest.mark.parametrize(
    ("available", "allocated", "local_size", "each"),
    [
        (64, "64", 8, 8),  # all tasks may run on all cores
        (8, "64", 8, 8),  # each is bound to its own
        (8, "64", 16, 4),  # and starts two processes
        (4, "", 8, 1),
    ],
)
def test_tasks_that_are_bound_to_cores_do_not_share_them(
    available: int, allocated: str, local_size: int, each: int, alone: pytest.MonkeyPatch
) -> None:
    alone.setattr(world_module, "available_cores", lambda: available)
    for name, text in {**TASK, "SLURM_CPUS_ON_NODE": allocated}.items():
        alone.setenv(name, text)
    assert cores_of_each(local_size) == each


def test_processes_of_a_process_that_has_a_rank_stand_among_all_of_them(alone: pytest.MonkeyPatch) -> None:
    assert environment_among(1, 2) == dict(
        zip(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), "1212", strict=True)
    )
    seen = set()
    for task in range(3):  # of a Slurm array, on machines of its own
        alone.setenv("RANK", str(task))
        alone.setenv("WORLD_SIZE", "3")
        for rank in range(4):
            found = environment_among(rank, 4)
            assert (found["WORLD_SIZE"], found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == ("12", str(rank), "4")
            seen.add(int(found["RANK"]))
    assert seen == set(range(12))
    alone.setenv("LOCAL_RANK", "1")  # of torchrun
    alone.setenv("LOCAL_WORLD_SIZE", "2")
    assert [environment_among(rank, 4)["LOCAL_RANK"] for rank in range(4)] == ["4", "5", "6", "7"]


UUIDS = [f"GPU-{number}ebe9f43-ac33-420b-932a-8dcabb6d5b7e" for number in range(8)]


class _Gpus:
    """Eight GPUs that are pretended, as torch and Accelerate see them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import accelerate
        import accelerate.utils

        self.chosen: list[torch.device] = []
        self.bound: list[int] = []
        self.environment: dict[str, str] = {}
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
        monkeypatch.setattr(torch.cuda, "set_device", self.chosen.append)
        monkeypatch.setattr(torch.cuda, "_raw_device_uuid_nvml", lambda: UUIDS)
        monkeypatch.setattr(accelerate, "PartialState", self._state)
        monkeypatch.setattr(accelerate.utils, "set_numa_affinity", self.bound.append)

    def _state(self) -> Any:
        self.environment = dict(os.environ)
        return types.SimpleNamespace(device=torch.device("cuda"))


@pytest.fixture
def gpus(alone: pytest.MonkeyPatch) -> _Gpus:
    return _Gpus(alone)


def test_a_process_uses_the_gpu_of_its_local_rank_and_no_other(gpus: _Gpus, alone: pytest.MonkeyPatch) -> None:
    for name, text in {**TASK, "PMI_SIZE": "19", "ACCELERATE_CPU_AFFINITY": "True"}.items():
        alone.setenv(name, text)
    world = current_world()
    assert gpus.chosen == [world.device] == [torch.device("cuda", 5)]
    assert not {"PMI_SIZE", "ACCELERATE_CPU_AFFINITY"} & gpus.environment.keys()
    assert os.environ["PMI_SIZE"] == "19"


@pytest.mark.parametrize(
    ("environment", "bound"),
    [
        ({"ACCELERATE_CPU_AFFINITY": "True"}, [5]),
        ({"ACCELERATE_CPU_AFFINITY": "1", "CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"}, [2]),
        ({"ACCELERATE_CPU_AFFINITY": "1", "CUDA_VISIBLE_DEVICES": ",".join(UUIDS[::-1])}, [2]),
        ({"ACCELERATE_CPU_AFFINITY": "1", "CUDA_VISIBLE_DEVICES": ",".join(uuid[:6] for uuid in UUIDS[::-1])}, [2]),
        ({"ACCELERATE_CPU_AFFINITY": "1", "CUDA_VISIBLE_DEVICES": "MIG-5ebe9f43"}, [5]),
        ({"ACCELERATE_CPU_AFFINITY": "False"}, []),
        ({}, []),
    ],
)
def test_accelerate_binds_a_process_to_the_cores_beside_its_own_gpu(
    environment: dict[str, str], bound: list[int], gpus: _Gpus, alone: pytest.MonkeyPatch
) -> None:
    for name, text in {**environment, "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8"}.items():
        alone.setenv(name, text)
    current_world()
    assert gpus.bound == bound


def test_cores_that_cannot_be_bound_are_told(gpus: _Gpus, alone: pytest.MonkeyPatch) -> None:
    def lacking(index: int) -> None:
        raise ImportError("the `nvidia-ml-py` package must be available. (`pip install nvidia-ml-py`)")

    alone.setattr("accelerate.utils.set_numa_affinity", lacking)
    alone.setenv("ACCELERATE_CPU_AFFINITY", "1")
    with pytest.raises(ConfigError, match=r"--enable_cpu_affinity: .*pip install nvidia-ml-py.*; or start without it"):
        current_world()


@pytest.mark.parametrize(
    ("device", "local_size", "says"),
    [
        ("cuda:0", 1, "8 GPUs are here, and this process uses one of them, cuda:0: --processes auto uses all"),
        ("cuda:0", 8, None),
        ("cpu", 1, None),
    ],
)
def test_one_process_on_a_machine_of_several_gpus_says_so(
    device: str, local_size: int, says: str | None, gpus: _Gpus
) -> None:
    assert describe_unused_gpus(World(0, local_size, 0, local_size, torch.device(device), 1)) == says


@pytest.mark.parametrize(
    ("has_driver", "visible", "works", "says"),
    [
        (True, None, False, True),
        (True, "0", False, True),
        (True, "", False, False),
        (True, "-1", False, False),
        (True, None, True, False),
        (False, None, False, False),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told(
    has_driver: bool, visible: str | None, works: bool, says: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.world._NVIDIA", tmp_path if has_driver else tmp_path / "nvidiactl")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: works)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert bool(describe_unusable_gpu()) == says


def test_available_cores_are_some_of_this_machine() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores


def test_the_end_of_a_process_flushes_and_takes_nothing_down() -> None:
    printed = run_python("""
import atexit
from pipeline.world import end_process
atexit.register(print, "taken down")
print("out")
end_process()
""")
    assert printed == "out\n"
