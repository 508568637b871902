"""What each task has of a cluster, and how many have room."""

from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError
from pipeline.jobs.ray.cluster import Request, Share, connected, share_of, slots

CPU = {"CPU": 8.0}
GPU = {"CPU": 32.0, "GPU": 4.0}
HEAD: dict[str, float] = {}


@pytest.mark.parametrize(
    ("nodes", "request_", "share", "room"),
    [
        ([HEAD, CPU, CPU], {}, Share(1, 0), 16),
        ([HEAD, CPU, GPU], {}, Share(4, 1), 4),  # a node without a GPU has no room
        ([GPU], {"cpus": 16}, Share(16, 1), 2),
        ([GPU], {"gpus": 0.5}, Share(4, 0.5), 8),
        ([GPU], {"gpus": 0.1, "cpus": 0.1}, Share(0.1, 0.1), 40),
        ([GPU], {"gpus": 0}, Share(1, 0), 32),
        ([CPU], {"gpus": 1}, Share(4, 1), 0),
        ([CPU], {"cpus": 9}, Share(9, 0), 0),
        ([HEAD], {}, Share(1, 0), 0),
        ([], {}, Share(1, 0), 0),
    ],
)
def test_tasks_have_room_where_a_node_has_all_that_each_of_them_wants(
    nodes: list[dict[str, float]], request_: dict[str, float], share: Share, room: int
) -> None:
    assert share_of(nodes, Request("auto", **request_)) == share  # type: ignore[arg-type]
    assert slots(nodes, share) == room


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance."),
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.18"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(error: Exception) -> None:
    def init(*arguments: object, **options: object) -> None:
        raise error

    with (
        pytest.raises(ConfigError, match=r"^--address host:1: .*; --address local starts") as caught,
        connected(SimpleNamespace(init=init), "host:1"),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert str(error).split()[-1] in str(caught.value)
