"""Whether vqtok is right on this machine's GPU: what no CPU can show, in a few minutes.

    make gpu-check                                          runs this with ARGS
    python scripts/gpu_check.py --only search --only nvjpeg    only checks whose names contain a word
    python scripts/gpu_check.py --device cpu                   does it run? Small checks; their figures mean nothing

Prints a table in Markdown, to be pasted into an issue. Exit status 0 when nothing is wrong, 1 when something is, 2
without a CUDA device.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from gpu.check import Bench, Check, Line, answers
from gpu.collection import make_collection
from gpu.decoding import nvjpeg
from gpu.failures import a_batch_too_large, a_device_assert, sigkill
from gpu.search import the_search
from gpu.sharing import launchers, processes_of_one_gpu
from gpu.tokens import digest_twice, short_last_batch, tokens_against_the_cpu, two_streams_against_one
from gpu.training import training_killed_and_resumed, training_over_nccl

from pipeline import __version__
from pipeline.process.cublas import set_repeatable_workspaces
from pipeline.source.images.vision import torchvision_version

CHECKS: tuple[Check, ...] = (
    digest_twice,
    tokens_against_the_cpu,
    short_last_batch,
    two_streams_against_one,
    the_search,
    nvjpeg,
    training_killed_and_resumed,
    a_batch_too_large,
    sigkill,
    a_device_assert,
    processes_of_one_gpu,
    launchers,
    training_over_nccl,
)
"""In the order of what they tell for the time that they take."""


@click.command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--limit", default=300.0, show_default=True, help="Seconds after which no further check is begun.")
@click.option("--only", multiple=True, metavar="WORD", help="Only checks whose names contain it; repeatable.")
def main(device: str, limit: float, only: tuple[str, ...]) -> None:
    """Check vqtok on a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        click.echo("no CUDA device here: nothing was checked (--device cpu tries whether the checks run)", err=True)
        sys.exit(2)
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    set_repeatable_workspaces()
    started = time.monotonic()
    click.echo(heading(device))
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="vqtok-gpu-check-") as name:
        for line in asked(Path(name), device, started + limit, only):
            click.echo(line)
            wrong += line.ok is False
    click.echo(f"\n{wrong} not ok; {time.monotonic() - started:.0f} s")
    sys.exit(1 if wrong else 0)


def asked(folder: Path, device: str, ends: float, only: tuple[str, ...] = ()) -> Iterator[Line]:
    """The lines of all checks, or of those whose names contain one of some words."""
    quick = device == "cpu"
    size = (
        {"side": 32, "images": 24, "shards": 3, "batch": 6, "hidden": 16}
        if quick
        else {"side": 256, "images": 2048, "shards": 16, "batch": 64, "hidden": 128}
    )
    where = torch.device("cpu") if quick else torch.device("cuda", 0)
    bench = Bench(where, folder, make_collection(folder / "collection", **size), quick, ends)
    for check in CHECKS:
        if not only or any(word in check.__name__ for word in only):
            yield from answers(check, bench)


def heading(device: str) -> str:
    """What the machine is, and the head of the table."""
    versions = f"vqtok {__version__}, torch {torch.__version__}, torchvision {torchvision_version}"
    where = f"{platform.processor() or platform.machine()}, a trial: its figures mean nothing"
    if device == "cuda":
        where = (
            f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}, "
            f"cuDNN {torch.backends.cudnn.version()}"
        )
    head = "| | what | figures |\n| --- | --- | --- |"
    return f"`make gpu-check` on {where}, Python {platform.python_version()}, {versions}.\n\n{head}"


if __name__ == "__main__":
    main()
