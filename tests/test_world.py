"""Where a process stands among others, without meeting them."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_store import Child
from support import run_python

from pipeline.errors import ConfigError
from pipeline.world import available_cores, cpu_quota, current_world, launched_rank


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
