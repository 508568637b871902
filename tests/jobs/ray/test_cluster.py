"""A cluster that cannot be used."""

import sys
from types import ModuleType

import pytest

from pipeline.errors import ConfigError
from pipeline.jobs.ray.cluster import connected


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance."),
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.18"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*arguments: object, **options: object) -> None:
        raise error

    ray = ModuleType("ray")
    ray.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ModuleType("ray.exceptions"))
    with (
        pytest.raises(ConfigError, match=r"^--address host:1: .*; --address local starts") as caught,
        connected("host:1"),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert str(error).split()[-1] in str(caught.value)
