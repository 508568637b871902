"""The steps in which a process changes a store, and signals to itself at exactly one of them.

Nothing here knows which function of the package does what. In the process that is to die, every call by which
Python changes files (open for writing, write, fsync, link, rename, unlink, rmdir, mkdir, truncate) is wrapped.
Each call on a path below the store is a *step*, named after the operation and the path in the store, in which
random names are `*`: `rename staging/train-0000-0f0e0d0c0b0a.* -> tokens.zarr/parts/train-0000-0f0e0d0c0b0a.*`.

Imported in forked processes: nothing of the package, nothing slow.
"""

import builtins
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEFORE, TORN, AFTER = "before", "torn", "after"
"""When within a step: before the call, after half of the bytes of a write, after the call."""
SIGNAL = "signal"

_RANDOM = "[0-9a-f]{8,}"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Trigger:
    """Where a process sends itself a signal; the next one counts from there on."""

    step: str
    """Name of a step, or of a kind of step: then any part's counts."""
    phase: str = BEFORE
    count: int = 1
    """At which occurrence of that step, from 1."""
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Stepping:
    """What a process that is to be watched, or killed, is told."""

    store: str
    parts: tuple[str, ...]
    """Names of all parts, so that their digits are not taken for random ones."""
    log: str
    """File outside of the store that gets a line for every step, and one for every signal before it is sent."""
    triggers: tuple[Trigger, ...] = ()


def kind_of(step: str, parts: Sequence[str]) -> str:
    """A step with `<part>` for the name of any part."""
    return re.sub("|".join(map(re.escape, parts)), "<part>", step)


def run_command(stepping: Stepping, arguments: Sequence[str]) -> None:
    """`vqtok arguments`, step by step."""
    from pipeline.cli import main

    _Steps(stepping).install()
    sys.argv = ["vqtok", *arguments]
    main()


def read_log(log: Path) -> list[tuple[str, str]]:
    """What a process has done, in order: phase and step, or SIGNAL and the step at which it sent one to itself."""
    if not log.exists():
        return []
    lines = [line.partition(" ") for line in log.read_text().splitlines()]
    return [(phase, step) for phase, _, step in lines]


class _Steps:
    """Wrappers around what changes files, in this process."""

    def __init__(self, stepping: Stepping) -> None:
        self._root = os.path.realpath(stepping.store)
        self._parts = stepping.parts
        self._names = re.compile("|".join([*map(re.escape, stepping.parts), _RANDOM]))
        self._triggers = list(stepping.triggers)
        self._left = self._triggers[0].count if self._triggers else 0
        self._log = os.open(stepping.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._write = os.write
        self._lock = threading.Lock()

    def install(self) -> None:
        for name in ("unlink", "remove", "rmdir", "mkdir", "truncate"):
            self._wrap(name, self._one_path)
        for name in ("link", "rename", "replace"):
            self._wrap(name, self._two_paths)
        for name in ("fsync", "fdatasync", "ftruncate"):
            self._wrap(name, self._descriptor)
        for name in ("write", "pwrite"):
            self._wrap(name, self._descriptor, torn=True)
        self._wrap("open", self._opened)
        opener = self._file_opener(io.open)
        builtins.open = opener  # type: ignore[assignment]
        io.open = opener  # type: ignore[assignment]

    def reach(self, step: str, phase: str) -> None:
        """Note a step, and signal this process if that is where it must be."""
        with self._lock:
            self._write(self._log, f"{phase} {step}\n".encode())
            if not self._triggers:
                return
            trigger = self._triggers[0]
            if phase != trigger.phase or trigger.step not in (step, kind_of(step, self._parts)):
                return
            self._left -= 1
            if self._left:
                return
            self._write(self._log, f"{SIGNAL} {step}\n".encode())
            self._triggers.pop(0)
            self._left = self._triggers[0].count if self._triggers else 0
            number = trigger.signal
        signal.pthread_kill(threading.get_ident(), number)  # not a step further in this thread

    def write(self, step: str, data: Any, write: Callable[[Any], int]) -> int:
        """A write in two halves where a process may be killed between them, in one call everywhere else."""
        self.reach(step, BEFORE)
        trigger = next(iter(self._triggers), None)
        if trigger is not None and trigger.phase == TORN:
            view = memoryview(data).cast("B")
            written = write(view[: len(view) // 2])
            self.reach(step, TORN)
            if written == len(view) // 2:
                written += write(view[written:])
        else:
            written = write(data)
        self.reach(step, AFTER)
        return written

    def name(self, operation: str, *paths: str) -> str | None:
        """Name of a step, None for one that is not of the store. `paths` are absolute."""
        inside = [path for path in paths if path == self._root or path.startswith(f"{self._root}/")]
        if not inside:
            return None
        relative = [os.path.relpath(path, self._root) for path in inside]
        masked = [self._names.sub(lambda m: m[0] if m[0] in self._parts else "*", path) for path in relative]
        return f"{operation} {' -> '.join(masked)}"

    def _wrap(self, name: str, paths_of: Callable[..., list[str]], torn: bool = False) -> None:
        original = getattr(os, name)
        operation = {"remove": "unlink", "replace": "rename", "fdatasync": "fsync", "pwrite": "write"}.get(name, name)

        def stepped(*arguments: Any, **options: Any) -> Any:
            paths = paths_of(*arguments, **options)
            step = self.name(operation, *paths) if paths else None
            if step is None:
                return original(*arguments, **options)
            if torn:
                target, data, *rest = arguments
                return self.write(step, data, lambda half: original(target, half, *rest, **options))
            self.reach(step, BEFORE)
            result = original(*arguments, **options)
            self.reach(step, AFTER)
            return result

        setattr(os, name, stepped)

    def _file_opener(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`open` whose files tell of every write to the operating system."""

        def opened(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            paths = [] if isinstance(file, int) or not set(mode) & set("wax+") else [_absolute(file)]
            step = self.name("write", *paths) if paths else None
            if step is None:
                return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
            created = self.name("open", *paths)
            assert created is not None
            self.reach(created, BEFORE)
            raw = _SteppedFile(self, step, file, mode.replace("b", "").replace("t", ""), closefd, opener)
            self.reach(created, AFTER)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return opened

    @staticmethod
    def _one_path(path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> list[str]:
        return [_absolute(path, dir_fd)]

    @staticmethod
    def _two_paths(
        source: Any, target: Any, *_: Any, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **__: Any
    ) -> list[str]:
        return [_absolute(source, src_dir_fd), _absolute(target, dst_dir_fd)]

    @staticmethod
    def _descriptor(target: Any, *_: Any, **__: Any) -> list[str]:
        return [_path_of(target if isinstance(target, int) else target.fileno())]

    @staticmethod
    def _opened(path: Any, flags: int, *_: Any, dir_fd: int | None = None, **__: Any) -> list[str]:
        return [_absolute(path, dir_fd)] if flags & _WRITING else []


class _SteppedFile(io.FileIO):
    """A file whose writes are steps."""

    def __init__(self, steps: _Steps, step: str, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(file, mode, closefd, opener)
        self._steps, self._step = steps, step

    def write(self, data: Any) -> int:
        return self._steps.write(self._step, data, super().write)


def _absolute(path: Any, folder: int | None = None) -> str:
    if isinstance(path, int):
        return _path_of(path)
    text = os.fsdecode(path)
    return os.path.normpath(Path(_path_of(folder), text) if folder is not None else Path.cwd() / text)


def _path_of(descriptor: int) -> str:
    """Path of an open file: of a pipe or a socket, something that is no path of the store."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""
