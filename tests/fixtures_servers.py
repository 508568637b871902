"""Object stores of other makers, started on this machine where their programs are installed; a pytest plugin.

| server | where it comes from |
| --- | --- |
| Ceph RADOS Gateway | Debian: `apt-get install ceph-mon ceph-osd radosgw` |

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "vqtokaccess", "AWS_SECRET_ACCESS_KEY": "vqtoksecret", "AWS_REGION": "us-east-1"}


@dataclass(frozen=True)
class Server:
    """A server that is up."""

    url: str
    """Of a bucket that is there."""
    environment: Mapping[str, str]
    """What points clients at it."""


@contextlib.contextmanager
def running(*command: object, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A process, killed at the end."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=file, stderr=file, env={**os.environ, **(environment or {})}
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def program(*names: str) -> str:
    """The path of a program; the test is skipped where it is absent."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
        if found:
            return found
    pytest.skip(f"no {names[0]} here")


def wait_until_up(url: str, log: Path, timeout_s: float = 60) -> None:
    """Until something answers, whatever it says."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)


def run(*command: object, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_bucket(server: str, environment: Mapping[str, str]) -> str:
    """A bucket of an S3 server, made by its own protocol; its URL, another one for each server."""
    import boto3

    boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    ).create_bucket(Bucket=f"on-{server}")
    return f"s3://on-{server}"


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Server]:
    """A cluster of one monitor and one storage process that keeps all in memory, and a gateway before it."""
    names = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
    mon, osd, gateway, admin, monmap, client = map(program, names)
    port, address, log = free_port(), f"127.0.0.1:{free_port()}", folder / "log"
    config = folder / "ceph.conf"
    config.write_text(
        f"""[global]
fsid = 5e2c52c2-7a0c-4a6e-9a46-0d8c0f6b3a52
mon host = v2:{address}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
mon data = {folder}/mon
osd data = {folder}/osd
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
pid file =
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
ms bind ipv6 = false
public addr = 127.0.0.1
"""
    )
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    of = ("--conf", config)
    run(
        monmap,
        "--create",
        "--addv",
        "a",
        f"[v2:{address}]",
        "--fsid",
        "5e2c52c2-7a0c-4a6e-9a46-0d8c0f6b3a52",
        folder / "monmap",
    )
    run(mon, *of, "--mkfs", "-i", "a", "--monmap", folder / "monmap")
    environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with contextlib.ExitStack() as processes:
        processes.enter_context(running(mon, *of, "-f", "-i", "a", log=log))
        run(client, *of, "--connect-timeout", "30", "osd", "new", "f5e1a1d0-0d5e-4ce5-8dd0-52b4f2f6bd3f")
        run(osd, *of, "--mkfs", "-i", "0", "--osd-uuid", "f5e1a1d0-0d5e-4ce5-8dd0-52b4f2f6bd3f")
        processes.enter_context(running(osd, *of, "-f", "-i", "0", log=log))
        processes.enter_context(running(gateway, *of, "-f", "-n", "client.admin", log=log))
        wait_until_up(environment["AWS_ENDPOINT_URL"], log, 120)
        run(
            admin,
            *of,
            "user",
            "create",
            "--uid",
            "vqtok",
            "--display-name",
            "vqtok",
            "--access-key",
            KEYS["AWS_ACCESS_KEY_ID"],
            "--secret-key",
            KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        yield Server(made_bucket("ceph", environment), environment)
