"""A real Slurm of two nodes on this machine, and processes that run the recipes of scripts/cluster; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fixtures_store import Job, good_samples, make_job, wait_for, write_shard
from support import ROOT, free_port, import_path

from pipeline.claims import read_claims
from pipeline.files import files_at

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"

_SLURM_CONF = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# How long a requeued job waits before it starts again.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
# Neither control groups nor an accounting database.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SlurmdTimeout=10
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=here1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 Gres=gpu:4
NodeName=here2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 Gres=gpu:4
PartitionName=main Nodes=here1,here2 Default=YES MaxTime=INFINITE State=UP
"""
# No GPUs: device files that exist everywhere, so that Slurm hands out numbers.
_GRES_CONF = "NodeName=here[1-2] Name=gpu File=/dev/tty[0-3]\n"

_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"}


def environment(**more: str) -> dict[str, str]:
    """What the recipes need to find this Python and this working tree."""
    return {**os.environ, "BIN": str(Path(sys.executable).parent), "PYTHONPATH": import_path(ROOT), **more}


@dataclass
class Slurm:
    """A Slurm of two nodes with four pretended GPUs each, all of it in one folder and on this machine."""

    folder: Path
    host: str = field(default_factory=lambda: socket.gethostname().partition(".")[0])
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self) -> None:
        """Write the configuration and start the daemons; returns when both nodes are idle."""
        for name in ("munge", "state", "spool", "log"):
            (self.folder / name).mkdir(mode=0o755)
        ports = [free_port() for _ in range(3)]
        conf = _SLURM_CONF.format(folder=self.folder, host=self.host, ports=ports, user=_user())
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(_GRES_CONF)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        options = (f"--{name}-file={self.folder}/munge/{name}" for name in ("key", "pid", "log", "seed"))
        # --force: the folder's parents belong to whoever runs the tests.
        self._start("munged", "--foreground", "--force", *options, f"--socket={self.folder}/munge/socket")
        wait_for((self.folder / "munge" / "socket").exists)
        self._start("slurmctld", "-D")
        for node in ("here1", "here2"):
            self.start_node(node)
        wait_for(lambda: self.run("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"], 30)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def stop(self) -> None:
        """End all jobs, then the daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user", _user())
            wait_for(lambda: not self.run("squeue", "--noheader"), 30)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
            daemon.wait()

    def run(self, *command: str, **more: str) -> str:
        """What a command of Slurm prints; `more` goes into its environment, and with `sbatch` into that of the job."""
        done = subprocess.run(
            command, env=self._environment(**more), cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise subprocess.SubprocessError(f"{command}: {done.stderr}")
        return done.stdout.strip()

    def jobs(self, job: str) -> list[dict[str, str]]:
        """The tasks of a job, as `scontrol show job` tells them."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def wait(self, job: str, timeout_s: float) -> list[dict[str, str]]:
        """The tasks of a job when all of them have ended for good."""
        deadline = time.monotonic() + timeout_s
        before: list[dict[str, str]] = []
        while not (before == (now := self.jobs(job)) and all(task["JobState"] in _FINAL for task in now)):
            assert time.monotonic() < deadline, self.run("squeue") + self.logs()
            before = now
            time.sleep(0.5)
        return before

    def fail_node(self, node: str) -> None:
        """Let a node die: its daemon and everything that runs below it, without a word to anybody."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for pid in _processes_of(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def logs(self) -> str:
        """Everything that jobs have printed."""
        return "".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("vqtok*.log")))

    def _start(self, *command: str, name: str | None = None) -> None:
        name = name or command[0]
        with (self.folder / "log" / name).open("ab") as log:
            self.daemons[name] = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log)

    def _environment(self, **more: str) -> dict[str, str]:
        path = f"{os.environ['PATH']}:{_SYSTEM_FOLDERS}"
        return environment(PATH=path, SLURM_CONF=str(self.folder / "slurm.conf"), **more)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm of its own for these tests; they are skipped where it is not installed or does not start."""
    path = f"{os.environ['PATH']}:{_SYSTEM_FOLDERS}"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


def _processes_of(node: str) -> set[int]:
    """The processes of a node's jobs, and Slurm's own process above each of them."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURMD_NODENAME={node}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.add(int(process.name))
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if "slurmstepd" in Path(f"/proc/{parent}/cmdline").read_text():
                    found.add(parent)
    return found


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


# --- work that lasts some seconds ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def long_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 source shards of 60 images."""
    folder = tmp_path_factory.mktemp("long")
    samples = good_samples(0, 60)
    for number in range(24):
        write_shard(folder / f"train-{number:04d}.tar", [(f"{number}-{key}", members) for key, members in samples])
    return folder


def make_long_job(folder: Path, source: Path, tokenizer: Path, size: int = 128, source_shards: int = 24) -> Job:
    """A job of about half a second for each source shard; four times as long with twice the size."""
    shards = [f"{source}/train-{number:04d}.tar" for number in range(source_shards)]
    return make_job(folder, source, tokenizer, {"source.shards": shards, "image.size": size})


@pytest.fixture
def long_job(long_collection: Path, tokenizer_folder: Path, tmp_path: Path) -> Job:
    """A job over the long collection that nobody has begun."""
    return make_long_job(tmp_path / "long", long_collection, tokenizer_folder)


@pytest.fixture(scope="session")
def long_digest(long_collection: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content digest of `long_job` after one process that nobody has disturbed."""
    job = make_long_job(tmp_path_factory.mktemp("undisturbed"), long_collection, tokenizer_folder)
    assert job.run().complete
    return job.digest


def claimed_by(job: Job, running_only: bool = True) -> list[int]:
    """The processes that hold a claim."""
    if not (job.store / "claims").exists():
        return []
    pids = [claim.pid for claim in read_claims(files_at(str(job.store)))]
    return [pid for pid in pids if not running_only or Path(f"/proc/{pid}").exists()]
