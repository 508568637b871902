"""System calls that name files, counted by strace(1): of a command, from a marker on, below some folders."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

KINDS = {
    "open": ("open", "openat"),
    "stat": ("stat", "lstat", "fstat", "newfstatat", "statx"),
    "listing": ("getdents64",),
    "link": ("link", "linkat"),
    "unlink": ("unlink", "unlinkat"),
    "rename": ("rename", "renameat", "renameat2"),
    "mkdir": ("mkdir", "mkdirat"),
    "fsync": ("fsync", "fdatasync"),
}
"""What is counted, and the names that it has for the kernel."""

MARKER = "/counting-begins-here"
"""A path that a process asks for when it begins with what is to be counted."""

_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
_CALL = re.compile(r"\d+ +(\w+)\(")


class NoStrace(Exception):
    """There is no strace here, or it may not trace."""


def count_calls(
    command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> tuple["Counter[str]", "Counter[str]"]:
    """Run a command and all the processes that it starts; their calls by kind, below `folder` and elsewhere.

    Only what follows a look at MARKER counts, where there is one. Raises NoStrace, and CalledProcessError where the
    command fails.
    """
    with tempfile.TemporaryDirectory(prefix="vqtok-trace-") as trace:
        file = Path(trace, "calls")
        strace = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-s", "4096", "-o", str(file)]
        traced = ["-e", f"trace={','.join(f'?{name}' for name in _KIND_OF)}"]
        try:
            subprocess.run([*strace, *traced, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
        except FileNotFoundError:
            raise NoStrace("strace is not installed") from None
        lines = file.read_text(errors="replace").splitlines()
    begun = next((number for number, line in enumerate(lines) if MARKER in line), -1)
    inside, elsewhere = Counter[str](), Counter[str]()
    for line in lines[begun + 1 :]:
        # A call that another one interrupts has a second line, which begins otherwise.
        if match := _CALL.match(line):
            (inside if folder is None or f"{folder}/" in line else elsewhere)[_KIND_OF[match[1]]] += 1
    return inside, elsewhere
