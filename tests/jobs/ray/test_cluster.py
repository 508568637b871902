"""A cluster that cannot be used."""

import errno
import socket
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from pipeline.errors import ConfigError
from pipeline.jobs.ray.cluster import connected, refuse_unreachable


@pytest.fixture
def listening() -> Iterator[str]:
    """HOST:PORT of something that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> str:
    """HOST:PORT of nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nothing_answers_is_refused_before_ray_waits_for_it(
    silent: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=f"^--address {scheme}{silent}: nothing answers there, for 0 s: .*refused; "):
        refuse_unreachable(f"{scheme}{silent}", 0)
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}{silent}")
    with pytest.raises(ConfigError, match=f"^RAY_ADDRESS {scheme}{silent}: nothing answers"):
        refuse_unreachable("auto", 0)


def test_what_answers_and_what_names_no_place_is_left_to_ray(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for address in (listening, f"ray://{listening}", "auto", "local", "anyscale://cluster"):
        refuse_unreachable(address, 0)


def pretend_ray(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose `init` raises this."""

    def init(*arguments: object, **options: object) -> None:
        raise error

    ray = ModuleType("ray")
    ray.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ModuleType("ray.exceptions"))


def test_a_home_that_cannot_be_written_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ray(OSError(errno.EROFS, "Read-only file system", "/home/someone/.ray"), monkeypatch)
    with pytest.raises(ConfigError, match=r"'/home/someone/\.ray'; .* RAY_AUTH_MODE=disabled"), connected("local"):
        pass


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance."),
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.18"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(
    error: Exception, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_ray(error, monkeypatch)
    with (
        pytest.raises(ConfigError, match=rf"^--address {listening}: .*; --address local starts") as caught,
        connected(listening),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert str(error).split()[-1] in str(caught.value)
