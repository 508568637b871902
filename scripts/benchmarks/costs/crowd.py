"""Many processes that tokenize next to nothing, over an object store: what they ask for, and how much they wait."""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from costs import requests
from costs.bill import beats_within

_SCRIPTS = Path(__file__).parent.parent


@click.command("crowd")
@click.option("--processes", "-n", multiple=True, type=int, default=(1, 8, 64), show_default=True)
@click.option("--shards", default=4, show_default=True, help="Source shards for each process.")
@click.option("--seconds", default=10.0, show_default=True, help="Of pretended work at each, half more or less.")
def crowd(processes: tuple[int, ...], shards: int, seconds: float) -> None:
    """Requests for each source shard, and the share of the time at work, as processes become more.

    Those of heartbeats are what the claims of `seconds` need, a PUT each.
    """
    kinds = requests.KINDS
    print(f"| processes | {' | '.join(kinds)} | without heartbeats | to the first | at work |")
    print(f"| --- |{' ---: |' * (len(kinds) + 3)}", flush=True)
    first = 0.0
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name, requests.s3_server(Path(name, "log")) as server:
        for count in processes:
            planned = count * shards
            counted, took = _run(server, count, planned, seconds)
            beats = planned * beats_within(seconds)
            rest = max(sum(counted[kind] for kind in kinds) - beats, 0) / planned
            first = first or rest
            cells = [f"{counted[kind] / planned:,.1f}" for kind in kinds]
            share = planned * seconds / (took * count)
            print(f"| {count} | {' | '.join(cells)} | {rest:,.1f} | {rest / first:.2f}× | {share:.0%} |", flush=True)


def _run(server: requests.Server, count: int, planned: int, seconds: float) -> tuple["Counter[str]", float]:
    """Requests by kind, and the seconds that it took."""
    store = f"s3://{requests.BUCKET}/crowd-{count}"
    command = [sys.executable, "-m", "costs.stub", store, str(planned), str(count), str(seconds)]
    began = time.monotonic()
    with server.counting() as counted:
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(_SCRIPTS)})
    return counted, time.monotonic() - began
