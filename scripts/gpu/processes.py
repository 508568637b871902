"""`vqtok` in processes of its own, and which GPUs they are on."""

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def last_words(self) -> str:
        """The end of what it printed."""
        return " ".join((self.err.strip() or self.out.strip())[-300:].split())


def vqtok(*arguments: object) -> list[str]:
    """The command, with this very Python."""
    return [sys.executable, "-m", "pipeline", *map(str, arguments)]


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, **environment: str) -> Iterator["Running"]:
    """A process, which is killed with all that it has started when the block ends."""
    with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env={**os.environ, **environment}, start_new_session=True
        )
    running = Running(process, log)
    try:
        yield running
    finally:
        running.kill()


class Running:
    """A process that has been started."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self._since = time.monotonic()

    def kill(self) -> None:
        """End it and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()

    def until(self, seen: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is seen; False when the process has ended before, or the time is over."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            if seen():
                return True
            if self._process.poll() is not None:
                return seen()
            time.sleep(0.02)
        return False

    def ended(self, timeout_s: float, look: Callable[[], None] = lambda: None) -> Ended:
        """Wait for its end, looking now and then. Raises TimeoutError."""
        ends = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > ends:
                raise TimeoutError(f"still running after {timeout_s:.0f} s: {self._read('.err')[-300:]}")
            look()
            time.sleep(_POLL_SECONDS / 5)
        return Ended(self._process.returncode, self._read(".out"), self._read(".err"), time.monotonic() - self._since)

    def _read(self, suffix: str) -> str:
        return self._log.with_suffix(suffix).read_text(errors="replace")


def run(command: Sequence[str], log: Path, timeout_s: float, **environment: str) -> Ended:
    """A process to its end. Raises TimeoutError."""
    with started(command, log, **environment) as running:
        return running.ended(timeout_s)


class Contexts:
    """How many processes have had a context on each GPU at once, at most, as nvidia-smi lists them."""

    def __init__(self) -> None:
        self._before = _listed()
        self._looked = 0.0
        self.most: Counter[str] = Counter()
        """By GPU, without those that were there before."""
        self.gpus_of: dict[str, set[str]] = {}
        """The GPUs of each process."""

    def __call__(self) -> None:
        """Look, unless that was just done."""
        if time.monotonic() - self._looked < _POLL_SECONDS:
            return
        self._looked = time.monotonic()
        found = _listed() - self._before
        for pid, gpu in found:
            self.gpus_of.setdefault(pid, set()).add(gpu)
        for gpu, count in Counter(gpu for _, gpu in found).items():
            self.most[gpu] = max(self.most[gpu], count)


def _listed() -> set[tuple[str, str]]:
    """Process and GPU of each context; none where nvidia-smi is missing or, in a container, names no processes."""
    query = ["nvidia-smi", "--query-compute-apps=pid,gpu_uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    rows = [tuple(part.strip() for part in line.split(",")) for line in done.stdout.splitlines()]
    return {(row[0], row[1]) for row in rows if len(row) == 2 and row[0].isdecimal()}
