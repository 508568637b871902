"""A Ray cluster on this machine: a head without CPUs, and nodes that come and go; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import Done, Job, wait_for
from support import ROOT, import_path

# Workers of Ray are less urgent than other processes (nice 15): where many share the cores they would hardly run.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": import_path(ROOT)}
_NODE = {"object_store_memory": 80 << 20, "include_dashboard": False, "include_log_monitor": False}
"""Nothing is put into the object store, and nobody looks at Ray's own pages."""
_TRIES = 4
"""Ray gives a node half a minute to start, which is too little where many other processes share the cores."""


@dataclass
class Nodes:
    """A cluster, and the nodes of one CPU each that do the work."""

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        """A node more."""
        self.nodes.append(_patiently(lambda: self.cluster.add_node(num_cpus=1, **_NODE)))
        return self.nodes[-1]

    def kill(self, node: Any) -> None:
        """Take a node away without a word to anybody."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """Take away the head, which knows what tasks there are."""
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)

    def just(self, count: int) -> None:
        """Have so many nodes, whatever a test before has left."""
        while len(self.nodes) > count:
            self.kill(self.nodes[-1])
        while len(self.nodes) < count:
            self.add()

    def start(self, job: Job, *arguments: str, **environment: str) -> "Driver":
        """`vqtok ray` over a job."""
        return Driver(job, "--address", self.address, *arguments, **environment)


class Driver:
    """`vqtok ray` in a process that the operating system starts."""

    def __init__(self, job: Job, *arguments: str, **environment: str) -> None:
        job.output.mkdir(exist_ok=True)
        self._err = job.output / f"driver-{len(list(job.output.glob('driver-*')))}"
        command = [sys.executable, "-m", "pipeline", "ray", "--config", str(job.file), *arguments]
        with self._err.open("w") as err:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**os.environ, **ENVIRONMENT, **environment},
                cwd=job.file.parent,
            )

    def wait(self, timeout_s: float = 400) -> Done:
        """Until it has ended."""
        try:
            out, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
            raise AssertionError(f"still running after {timeout_s} s: {self._err.read_text()}") from None
        return Done(self.process.returncode, out, self._err.read_text())


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Nodes]:
    """One for all tests: its start takes seconds."""
    with new_cluster() as nodes:
        yield nodes


@contextlib.contextmanager
def new_cluster(environment: Mapping[str, str] | None = None, **head: Any) -> Iterator[Nodes]:
    """A cluster without nodes for work; further variables for it, and arguments of Ray for the head."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="vqtok-ray-", dir="/tmp")  # paths of sockets must be short
    Path("/tmp/ray").mkdir(exist_ok=True)  # Ray notes there where a cluster is
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT | (environment or {}))
    arguments = {"num_cpus": 0, "temp_dir": folder, **_NODE, **head}
    try:
        cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=arguments))
        try:
            yield Nodes(cluster)
        finally:
            cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _patiently(start: Callable[[], Any]) -> Any:
    for left in reversed(range(_TRIES)):
        try:
            return start()
        except Exception:  # nothing more special
            if not left:
                raise
    return None


def children_of(job: Job) -> dict[int, int]:
    """Processes of tasks that tokenize for a job, with the process that started each."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"tokenize" in words and str(job.file).encode() in words:
                found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def assert_all_ended(job: Job) -> None:
    """No process of the job is left, and none has left a claim."""
    wait_for(lambda: not children_of(job), 60)
    assert job.listing("claims") == []
