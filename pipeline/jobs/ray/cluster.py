"""A Ray cluster: connecting to it, and how many tasks it has room for. Imports Ray when it is asked to."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.jobs.work.processes import Share, room_on
from pipeline.process.signals import StopRequest

# Nothing of ours goes through it; Ray takes a third of the machine's memory by default.
_OBJECT_STORE_BYTES = 100 << 20
# The head may be starting; Ray itself would try for many minutes, with no word of ours.
_ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class Request:
    """What is asked of the cluster; None for what it decides itself."""

    address: str
    workers: int | None = None
    gpus: float | None = None
    cpus: float | None = None
    wait_for_nodes_s: float = 0.0
    """Seconds to wait for the first node that has room for a task."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray's package, connected to the cluster at `address`; `local` starts one on this machine, which ends with it.

    Raises ConfigError where Ray is not installed, and naming the address where there is no cluster, or one of another
    version of Ray or Python.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError(f"vqtok ray needs the package ray: pip install 'vqtok[ray]' ({error})") from None
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody has asked Ray to report to anybody
        options = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    refuse_unreachable(address, _ANSWER_SECONDS)
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"--address {address}: {reason}{_hint(address, error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _hint(address: str, error: Exception) -> str:
    if address != "local":
        return "; --address local starts a cluster on this machine"
    if isinstance(error, OSError) and ".ray" in str(error.filename):
        return "; Ray writes the token of a new cluster there: RAY_AUTH_MODE=disabled starts one without"
    return ""


def refuse_unreachable(address: str, seconds: float) -> None:
    """Raise ConfigError where nothing answers at the HOST:PORT that an address names, asked for so many seconds."""
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    place = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", named)
    if place is None:
        return
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((place[1], int(place[2])), max(deadline - time.monotonic(), 1)):
                return
        except (OSError, OverflowError) as error:
            if time.monotonic() + 1 >= deadline:
                which = "RAY_ADDRESS" if address == "auto" else "--address"
                raise ConfigError(
                    f"{which} {named}: nothing answers there, for {seconds:.0f} s: {error}; see that the head of the "
                    "cluster is up, and that host and port are those that `ray start --head` has named"
                ) from None
            time.sleep(1)


def find_room(ray: Any, request: Request, stop: StopRequest) -> tuple[Share, int]:
    """What each task has of its node, and how many tasks have room at once, as soon as any has.

    Raises ConfigError where none has in the time that is asked for.
    """
    deadline = time.monotonic() + request.wait_for_nodes_s
    while True:
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [Share(each.get("CPU", 0), each.get("GPU", 0)) for each in found]
        share, room = room_on(nodes, request.cpus, request.gpus)
        if room or stop.signum:
            return share, room
        if time.monotonic() >= deadline:
            there = " or ".join(sorted({str(node) for node in nodes}))
            raise ConfigError(
                f"no node of the Ray cluster has {share} for a task (--cpus, --gpus): its {len(nodes)} nodes have "
                f"{there}. Where an autoscaler brings nodes, give --workers and --wait-for-nodes SECONDS"
            )
        time.sleep(1)
