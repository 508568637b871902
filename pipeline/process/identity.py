"""Which process a number stands for: on which boot of the host, in which container, and since when."""

import os
import socket
from functools import cache
from pathlib import Path


def describe_process() -> str:
    """This process, unlike any other: its host, boot, number and start."""
    pid = os.getpid()
    return f"{socket.gethostname()} {boot_id()} {pid_namespace(pid)} {pid} {process_start(pid)}"


@cache
def boot_id() -> str:
    """Another one after every start of the host; empty where nobody tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def pid_namespace(pid: int) -> str:
    """That of this process, whose number is `pid`: a forked one may be in another. Empty where nobody tells."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Start of a process in clock ticks after boot (field 22 of proc(5) stat), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
