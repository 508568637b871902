"""What it costs to hand out source shards as processes become more: system calls, and requests of an object store."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import torch

from costs import calls, requests
from costs.sources import shard_name, tiny_tar, write_job
from pipeline.files import files_at
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization

SCRIPTS = Path(__file__).parent.parent
GOAL = 1.3
"""At most so many times the calls of one process for each source shard."""


@click.command("handout")
@click.option("--shards", default=1000, show_default=True, help="Source shards for the stub.")
@click.option("--processes", "-n", multiple=True, type=int, default=(1, 8, 64), show_default=True)
@click.option("--job-shards", default=200, show_default=True, help="Source shards of one image for the real job.")
@click.option("--job-processes", multiple=True, type=int, default=(1, 8), show_default=True)
def handout(shards: int, processes: tuple[int, ...], job_shards: int, job_processes: tuple[int, ...]) -> None:
    """System calls for each source shard, of a stub that commits parts of one row, and of the real job."""
    try:
        _print_head("processes that commit parts of one row, calls for each source shard", calls.KINDS)
        first: Counter[str] | None = None
        for count in processes:
            counted = _calls_of_stub(shards, count)
            first = first or counted
            _print_row(f"{count}, {shards:,} source shards", counted, first, shards, calls.KINDS)
        _print_head("`vqtok tokenize --processes`, calls in source and store for each source shard", calls.KINDS)
        first, elsewhere = None, {}
        for count in job_processes:
            counted, elsewhere[count] = _calls_of_job(job_shards, count)
            first = first or counted
            _print_row(f"{count}, {job_shards:,} source shards", counted, first, job_shards, calls.KINDS)
        for count, other in elsewhere.items():
            print(f"start-up and libraries of {count}: {other.total() / count:,.0f} calls a process")
    except calls.NoStrace as error:
        click.echo(f"left out: {error}, so system calls cannot be counted")


@click.command("requests")
@click.option("--shards", default=48, show_default=True, help="Source shards of one image.")
@click.option("--processes", "-n", multiple=True, type=int, default=(1, 4, 8), show_default=True)
def requests_(shards: int, processes: tuple[int, ...]) -> None:
    """Requests by kind, of the stub from its first listing on, and of the real job with its source on S3, too."""
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name, requests.s3_server(Path(name, "log")) as server:
        root, folder = f"s3://{requests.BUCKET}", Path(name)

        def measure(command: Callable[[int], list[str]]) -> None:
            first: Counter[str] | None = None
            for count in processes:
                with server.counting() as counted:
                    subprocess.run(command(count), check=True, stdout=subprocess.DEVNULL, env=_with_scripts())
                first = first or counted
                _print_row(f"{count}", counted, first, 1, kinds, requests.START_UP)

        kinds = (*requests.KINDS, requests.START_UP)
        _print_head(f"Processes that commit {shards} parts of one row to S3, requests", kinds)
        measure(lambda count: _stub_command(f"{root}/stub-{count}", shards, count))
        for number in range(shards):
            files_at(f"{root}/source").put(shard_name(number), tiny_tar())
        tokenizer = _tokenizer(folder)
        _print_head(f"`vqtok tokenize` of {shards} source shards on S3, requests", kinds)
        measure(
            lambda count: _job_command(
                write_job(folder / "job.yaml", f"{root}/source", f"{root}/store-{count}", tokenizer), count
            )
        )


def _calls_of_stub(shards: int, processes: int) -> "Counter[str]":
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as folder:
        command = _stub_command(f"{folder}/store", shards, processes)
        return calls.count_calls(command, environment=_with_scripts())[0]


def _calls_of_job(shards: int, processes: int) -> tuple["Counter[str]", "Counter[str]"]:
    """In source and store, and elsewhere."""
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
        folder = Path(name).resolve()
        (folder / "data/source").mkdir(parents=True)
        for number in range(shards):
            (folder / "data/source" / shard_name(number)).write_bytes(tiny_tar())
        job = write_job(folder / "job.yaml", f"{folder}/data/source", f"{folder}/data/store", _tokenizer(folder))
        return calls.count_calls(_job_command(job, processes), folder / "data")


def _stub_command(store: str, shards: int, processes: int) -> list[str]:
    return [sys.executable, "-m", "costs.stub", store, str(shards), str(processes)]


def _with_scripts() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SCRIPTS)}


def _job_command(job: Path, processes: int) -> list[str]:
    command = [sys.executable, "-m", "pipeline", "tokenize", "--no-progress", "--config", str(job)]
    return [*command, "--processes", str(processes)]


def _tokenizer(folder: Path) -> Path:
    """An untrained one, in `folder`."""
    torch.manual_seed(0)
    model = SimpleVQVAE(vocab_size=16, embedding_dim=4, hidden_dim=8, final_relu=False)
    save_tokenizer(folder / "tokenizer", model.eval(), Normalization())
    return folder / "tokenizer"


def _print_head(what: str, kinds: Sequence[str] | Mapping[str, object]) -> None:
    print(f"\n{what} (goal: at most {GOAL} times those of the first row)\n")
    print(f"| processes | {' | '.join(kinds)} | all | to the first |")
    print(f"| --- |{' ---: |' * (len(kinds) + 2)}", flush=True)


def _print_row(
    name: str,
    counted: "Counter[str]",
    first: "Counter[str]",
    each: int,
    kinds: Sequence[str] | Mapping[str, object],
    apart: str = "",
) -> None:
    """A row of the table; the kind `apart` does not count in the comparison with the first one."""
    form = ",.0f" if each == 1 else ",.1f"
    cells = [format(counted[kind] / each, form) for kind in kinds]
    print(
        f"| {name} | {' | '.join(cells)} | {format(counted.total() / each, form)} "
        f"| {(counted.total() - counted[apart]) / (first.total() - first[apart]):.2f}× |",
        flush=True,
    )
