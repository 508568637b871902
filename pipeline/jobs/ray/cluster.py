"""A Ray cluster: connecting to it, and how many tasks it has room for. Imports Ray when it is asked to."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError

# Nothing of ours goes through it; Ray takes a third of the machine's memory by default.
_OBJECT_STORE_BYTES = 100 << 20
# Shares such as 0.1 add up to a little less than 1.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Share:
    """What each task has of its node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU core{'' if self.cpus == 1 else 's'}{gpus}"


@dataclass(frozen=True)
class Request:
    """What is asked of the cluster; None for what it decides itself."""

    address: str
    workers: int | None = None
    gpus: float | None = None
    cpus: float | None = None
    wait_for_nodes_s: float = 0.0
    """Seconds to wait for the first node that has room for a task."""


def load_ray() -> Any:
    """The package. Raises ConfigError where it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError(f"vqtok ray needs the package ray: pip install 'vqtok[ray]' ({error})") from None
    return ray


@contextlib.contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to the cluster at `address`; `local` starts one on this machine, which ends with it.

    Raises ConfigError naming the address where there is no cluster, or one of another version of Ray or Python.
    """
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody has asked Ray to report to anybody
        options = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "" if address == "local" else "; --address local starts a cluster on this machine"
        raise ConfigError(f"--address {address}: {reason}{hint}") from error
    try:
        yield
    finally:
        ray.shutdown()


def share_of(nodes: Sequence[Mapping[str, float]], request: Request) -> Share:
    """What each task has of its node: a GPU where any node has one, with four CPU cores, else one core. Pure.

    Args:
        nodes: resources of each living node, as Ray names them.
    """
    gpus = request.gpus
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    return Share(request.cpus if request.cpus is not None else 4.0 if gpus else 1.0, gpus)


def slots(nodes: Sequence[Mapping[str, float]], share: Share) -> int:
    """How many tasks have room at once. Pure."""
    wanted = {"CPU": share.cpus, "GPU": share.gpus}
    return sum(
        min(int(node.get(name, 0) / each + _ROUNDING) for name, each in wanted.items() if each) for node in nodes
    )


def nodes_of(ray: Any) -> list[dict[str, float]]:
    """Resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
