"""Two tasks of Ray, of one core each, beside two plain processes: the same job in turns, and the ratio of their speeds.

    python scripts/benchmarks/bench_ray.py --config my.yaml --rounds 3

Speeds are those of `vqtok status`: images over the time in which anybody was at work, so that the start of a cluster
and of processes does not count.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

_VQTOK = [sys.executable, "-m", "pipeline"]
# Ray's workers yield to other processes (nice 15), which would be measured where anything else runs.
_ENVIRONMENT = {**os.environ, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@click.command()
@click.option("--config", required=True, help="A configuration whose tokenizer is there; its store is left alone.")
@click.option("--workers", default=2, show_default=True, help="Tasks, and processes; each has a core.")
@click.option("--rounds", default=3, show_default=True, help="Each has both, in turns that begin with another one.")
def main(config: str, workers: int, rounds: int) -> None:
    """Print images/s of both in each round, and the median of their ratios."""
    ways = {
        "processes": ["tokenize", "--no-progress", "--processes", str(workers)],
        "ray": ["ray", "--no-progress", "--address", "local", "--workers", str(workers), "--cpus", "1", "--gpus", "0"],
    }
    ratios = []
    for number in range(rounds):
        names = sorted(ways, reverse=bool(number % 2))
        speeds = {name: _speed(config, ways[name]) for name in names}
        ratios.append(speeds["ray"] / speeds["processes"])
        print(f"| {speeds['processes']:,.1f} | {speeds['ray']:,.1f} | {ratios[-1]:.3f} |", flush=True)
    print(f"median of {rounds}: {statistics.median(ratios):.3f}")


def _speed(config: str, command: list[str]) -> float:
    """Images a second."""
    folder = Path(tempfile.mkdtemp(prefix="vqtok-bench-"))
    common = ["--config", config, "--set", f"tokenize.store={folder / 'store'}"]
    try:
        subprocess.run([*_VQTOK, *command, *common], check=True, env=_ENVIRONMENT, stdout=subprocess.DEVNULL)
        told = subprocess.run([*_VQTOK, "status", "--json", *common], check=True, stdout=subprocess.PIPE)
        return float(json.loads(told.stdout)["images_per_second"])
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
