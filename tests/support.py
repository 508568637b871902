"""What tests of several rooms share: tar files, image files, other processes, data that may be absent."""

import contextlib
import io
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent

OLDER = ROOT / "tests/fixtures/format-1"
"""A store and tokenizer folders of an older version; see the README beside them."""


def sampled(first: object, *rest: object) -> list[Any]:
    """Parameters of a test: the first one in every run, the rest among the slow ones."""
    return [first, *(pytest.param(*values(value), marks=pytest.mark.slow) for value in rest)]


QUICK = "VQTOK_TESTS_QUICK"
"""Set where the slow tests are left out."""


def examples(count: int, quick: bool | None = None) -> int:
    """So many examples of a property, and two fifths of them where slow tests are left out: each run has others."""
    if quick is None:
        quick = QUICK in os.environ
    return max(count * 2 // 5, 1) if quick else count


def values(parameter: object) -> tuple[Any, ...]:
    """A parameter as the values that it consists of."""
    return parameter if isinstance(parameter, tuple) else (parameter,)


def vqtok_script() -> Path:
    """The command `vqtok` as it is installed; the test is skipped where only its package is on the path of imports."""
    script = Path(sys.executable).with_name("vqtok")
    if not script.exists():
        pytest.skip("no command vqtok beside this Python")
    return script


def import_path(*folders: str | Path) -> str:
    """PYTHONPATH with folders in front of those that are in it already: the packages may be in one of them."""
    return os.pathsep.join(map(str, [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]))


POLL_SECONDS = 0.02
"""How long a server of a test may take to see that it is to end: half a second by default, for each test."""

Members = Sequence[tuple[str, bytes]] | Mapping[str, bytes]


def shared_data(path: str) -> Path:
    """A file or folder of the developers' data beside the repository; the test is skipped where it is absent."""
    found = ROOT.parent / "shared" / "data" / path
    if not found.exists():
        pytest.skip(f"no ../shared/data/{path} here")
    return found


def tar_bytes(members: Members, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar as `tarfile` writes it, members in the given order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Members, format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members, format))
    return path


def older_files(folder: Path) -> Path:
    """A copy of OLDER in a folder that is made; its job.yaml is for processes that run there."""
    return shutil.copytree(OLDER, folder)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth uint8 pixels [height, width, channels], different in every direction and channel."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        127.5 + 127.5 * np.sin((3 + channel) * x / width + (channel - 2.5) * y / height + channel)
        for channel in range(channels)
    ]
    return np.stack(planes, -1).round().astype(np.uint8)


def new_threads(before: Collection[threading.Thread]) -> list[str]:
    """The names of the threads that run now and did not before: those of earlier tests may end at any time."""
    return [thread.name for thread in threading.enumerate() if thread not in before]


def start_python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A Python process of its own, with pipes for its input, output and errors."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def run_python(code: str, *arguments: object, timeout_s: float = 120, **environment: str) -> str:
    """What a Python process prints; the test fails with its errors when it does not end well."""
    with start_python(code, *arguments, **environment) as process:
        try:
            out, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return out


def free_port() -> str:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@contextlib.contextmanager
def file_system(folder: Path, megabytes: int, kind: str = "tmpfs") -> Iterator[Path]:
    """A new file system of this size at `folder`; the test is skipped where mounting is not allowed.

    Args:
        kind: `tmpfs`, or `ramfs`, which cannot reserve the blocks of a file and has any size.
    """
    folder.mkdir()
    command = ["mount", "-t", kind, "-o", f"size={megabytes}m", kind, str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def in_a_fork(function: Callable[..., Any], *arguments: object, timeout_s: float = 280) -> tuple[int | None, list[Any]]:
    """Exit code of a fork of this process that calls the function, and what it returned, if it came to that.

    It may limit or kill itself, and change what it likes. It finds the locks of this process as they are, and torch's
    threads gone: for work that takes any, see `in_a_child`.
    """
    return _returned(multiprocessing.get_context("fork"), timeout_s, function, *arguments)


def in_a_child(function: Callable[..., Any], *arguments: Any, timeout_s: float = 280) -> Any:
    """What a function of a module returns in a process that nothing ran in before; the test fails when it dies."""
    status, returned = _returned(multiprocessing.get_context("forkserver"), timeout_s, function, *arguments)
    assert returned, f"the process died with status {status}"
    return returned[0]


def _returned(
    context: Any, timeout_s: float, function: Callable[..., Any], *arguments: object
) -> tuple[int | None, list[Any]]:
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sender, function, arguments))
    child.start()
    sender.close()
    returned = []
    try:
        assert receiver.poll(timeout_s), "still at it"
        with contextlib.suppress(EOFError):  # it died
            returned.append(receiver.recv())
        child.join(60)
    finally:
        child.kill()  # where it has not ended
        child.join()
    return child.exitcode, returned


def _send(sender: Connection, function: Callable[..., Any], arguments: Sequence[object]) -> None:
    sender.send(function(*arguments))
