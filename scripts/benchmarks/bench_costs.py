"""What exactness costs: resuming over many parts, claims and commits, memory as a collection grows.

    python scripts/benchmarks/bench_costs.py resume        a run that finds 10,000 parts committed
    python scripts/benchmarks/bench_costs.py start         where the time of a job of two seconds goes
    python scripts/benchmarks/bench_costs.py commits       share of a run's time that goes to claims and commits
    python scripts/benchmarks/bench_costs.py handout       system calls for each source shard, of 1, 8 and 64 processes
    python scripts/benchmarks/bench_costs.py requests      requests that 1, 4 and 8 processes make of an object store
    python scripts/benchmarks/bench_costs.py crowd         the same of 64 processes that take their time
    python scripts/benchmarks/bench_costs.py bill          the same of a thousand workers, on paper
    python scripts/benchmarks/bench_costs.py reading       epochs from a server that takes its time, beside a download
    python scripts/benchmarks/bench_costs.py memory        peak memory for 10,000 and for 1,000,000 images
    python scripts/benchmarks/bench_costs.py rows          reading and searching a store of a billion rows

Each makes what it needs in a temporary folder and prints rows of a Markdown table for docs/benchmarks.md.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import yaml
from costs import bill, crowd, far_reading, handing_out, reading, starting
from costs.linked import key_of, write_linked_store
from measured import run_measured
from PIL import Image
from webdataset import TarWriter

from pipeline.config import Config, load_config
from pipeline.files import Files, files_at
from pipeline.jobs.plan import make_plan
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.jobs.work import claim_queue
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization, SourceRecord
from pipeline.store.schema.birth import Birth, create_or_compare
from pipeline.store.writing.hierarchy import prepare_hierarchy
from pipeline.store.writing.writer import EncodedShard, commit_part

SIDE_AND_VOCAB = {32: 512, 64: 512, 256: 1024}


@click.group()
def main() -> None:
    """Measure what exactness costs."""


main.add_command(handing_out.handout)
main.add_command(handing_out.requests_)
main.add_command(crowd.crowd)
main.add_command(bill.bill)
main.add_command(far_reading.reading)


@main.command()
@click.option("--parts", default=10_000, show_default=True)
def resume(parts: int) -> None:
    """A run, a status and a quick verification over committed parts, each in a process of its own."""
    with _workplace() as folder:
        config = _write_config(folder, side=32, batch_size=50)
        tar = _write_tar(folder / "one.tar", images=1, side=32)
        _name_often(tar, folder / "source", parts)
        _commit_all(config)
        for name, command in {
            "`vqtok tokenize` (nothing to do)": ["tokenize"],
            "`vqtok status`": ["status"],
            "`vqtok verify --quick`": ["verify", "--quick"],
        }.items():
            seconds = min(_seconds([sys.executable, "-m", "pipeline", *command, "--config", config]) for _ in range(3))
            print(f"| {name} over {parts:,} committed parts | {seconds:.2f} s |", flush=True)


@main.command()
@click.option("--images", default=800, show_default=True, help="Images of 64 px, in two source shards.")
def start(images: int) -> None:
    """Where the CPU time of a short job goes, and that of the same command once all is committed."""
    with _workplace() as folder:
        config = _write_config(folder, side=64, batch_size=50)
        _name_often(_write_tar(folder / "one.tar", images=images // 2, side=64), folder / "source", 2)
        seconds = starting.measure(config)
        total = sum(seconds.values())
        for name, part in seconds.items():
            _say_rows(name, f"{part:.1f} s", f"{100 * part / total:.0f} %")
        _say_rows(f"{images} images of 64 px in all", f"{total:.1f} s", "100 %")
        again = run_measured([sys.executable, "-m", "pipeline", "tokenize", "--config", str(config)])
        _say_rows("the same command again, which finds nothing to do", f"{again.cpu_seconds:.1f} s", "")


@main.command()
@click.option("--side", default=64, show_default=True, help="Image side in pixels.")
@click.option("--shards", default=20, show_default=True, help="Source shards of 1,000 images.")
def commits(side: int, shards: int) -> None:
    """What claims and commits cost: time in which source shards are handed out, and the time of a commit alone."""
    with _workplace() as folder:
        config = _write_config(folder, side, batch_size=50)
        _name_often(_write_tar(folder / "one.tar", images=1000, side=side), folder / "source", shards)
        spent: Counter[str] = Counter()
        _timed(claim_queue.ClaimQueue, "next", spent, "next")
        started = time.monotonic()
        result = tokenize.run(load_config(config), show_progress=False)
        total = time.monotonic() - started
        each = _seconds_of_a_commit(load_config(config), folder / "again")
        print(
            f"| {side} px, 1,000 images a source shard, {result.images / result.seconds:,.0f} images/s "
            f"| {100 * spent['next'] / total:.2f} % | {1000 * each:.0f} ms | {100 * shards * each / total:.2f} % |"
        )


@main.command()
@click.option("--few", default=10, show_default=True, help="Source shards of 1,000 images, 32 px.")
@click.option("--many", default=1000, show_default=True)
def memory(few: int, many: int) -> None:
    """Peak resident memory of a whole run, for few images and for many."""
    peaks = {}
    for shards in (few, many):
        with _workplace() as folder:
            config = _write_config(folder, side=32, batch_size=50)
            _name_often(_write_tar(folder / "one.tar", images=1000, side=32), folder / "source", shards)
            command = [sys.executable, "-m", "pipeline", "tokenize", "--no-progress", "--config", str(config)]
            took = run_measured(command)
            peaks[shards] = took.peak_mib
            print(
                f"| {shards * 1000:,} images of 32 px | {took.peak_mib:,.0f} MiB | {took.seconds:.0f} s |", flush=True
            )
    print(f"| growth | {100 * (peaks[many] / peaks[few] - 1):+.1f} % | |")


@main.command()
@click.option("--parts", default=20_000, show_default=True, help="Parts, most of them hard links to the files of one.")
@click.option("--rows", default=50_000, show_default=True, help="Rows of a part.")
@click.option("--tokens", default=256, show_default=True, help="Tokens of a row.")
def rows(parts: int, rows: int, tokens: int) -> None:
    """Open, shuffle, resume and search a store of very many rows; each in a process of its own."""
    with _workplace() as folder:
        store = folder / "store"
        write_linked_store(store, parts, rows, tokens)
        _say_rows(f"{parts * rows:,} rows in {parts:,} parts", "")
        loaded = reading.measure("load", store)
        _say_rows("`TokenStore(path)`", f"{loaded['open']:.2f} s")
        _say_rows("first batch of a shuffled epoch", f"{loaded['first']:.2f} s")
        _say_rows("shuffled epoch", f"{loaded['rate']:,.0f} rows/s")
        _say_rows(f"first batch of an epoch resumed on {reading.RANKS:,} ranks", f"{loaded['resume']:.2f} s")
        for key in (key_of(parts - 1, rows // 2), key_of(0, rows // 2), "nobody"):
            found = reading.measure("find", store, key)
            name = f"`store.keys.find`, rows found: {found['rows']:,}"
            _say_rows(name, f"{found['seconds']:.1f} s, {found['cpu']:.1f} s of CPU, {found['mib']:+.0f} MiB")
        command = [sys.executable, "-m", "pipeline", "show", str(store), key_of(parts - 1, rows // 2)]
        shown = run_measured(command)
        _say_rows("`vqtok show STORE KEY`, whole process", f"{shown.seconds:.1f} s, {shown.peak_mib:.0f} MiB")


def _say_rows(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


@contextmanager
def _workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vqtok-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _write_config(folder: Path, side: int, batch_size: int) -> Path:
    """A configuration for `folder/source`, with an untrained tokenizer: its tokens cost what others do."""
    torch.manual_seed(0)
    model = SimpleVQVAE(vocab_size=SIDE_AND_VOCAB[side], embedding_dim=64, hidden_dim=128, final_relu=False)
    save_tokenizer(folder / "tokenizer", model.eval(), Normalization())
    tree = {
        "source": {"shards": str(folder / "source/*.tar")},
        "image": {"size": side},
        "tokenizer": {"path": str(folder / "tokenizer")},
        "tokenize": {"store": str(folder / "store"), "batch_size": batch_size},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(tree))
    return folder / "job.yaml"


def _write_tar(path: Path, images: int, side: int) -> Path:
    """Smooth random pictures as JPEG."""
    random = np.random.default_rng(0)
    with TarWriter(str(path)) as writer:
        for number in range(images):
            coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            data = io.BytesIO()
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
            writer.write({"__key__": f"{number:06d}", "jpg": data.getvalue(), "cls": str(number % 10).encode()})
    return path


def _name_often(tar: Path, folder: Path, names: int) -> None:
    """One file under many names: many source shards that take the room of one."""
    folder.mkdir()
    for number in range(names):
        os.link(tar, folder / f"train-{number:06d}.tar")


def _commit_all(config_file: Path) -> None:
    """Commit a part of one row for every source shard, without encoding anything."""
    config = load_config(config_file)
    plan = make_plan(config)
    birth = _begin_store(config, plan.store)
    for shard in plan.shards:
        assert shard.bytes is not None
        source = SourceRecord(path=shard.path, bytes=shard.bytes, sha256="0" * 64, version=shard.version, head="")
        commit_part(plan.store, birth, _encoded(birth, shard.part, source, rows=1))
    tokenize.bring_up_to_date(make_plan(config), birth)


def _seconds_of_a_commit(config: Config, folder: Path, commits: int = 20) -> float:
    """Mean time of a commit of 1,000 rows, with nothing beside it."""
    files = files_at(str(folder))
    birth = _begin_store(config, files)
    parts = [
        _encoded(birth, f"part-{number}", SourceRecord(path="", bytes=0, sha256=""), 1000) for number in range(commits)
    ]
    started = time.monotonic()
    for part in parts:
        commit_part(files, birth, part)
    return (time.monotonic() - started) / commits


def _begin_store(config: Config, files: Files) -> Birth:
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu", "fp32")
    birth = tokenize.make_birth(config, tokenizer)
    create_or_compare(files, birth)
    prepare_hierarchy(files, birth, tokenizer.codebook.table)
    return birth


def _encoded(birth: Birth, part: str, source: SourceRecord, rows: int) -> EncodedShard:
    """Random tokens as if they had been encoded."""
    shape = (rows, birth.geometry.num_tokens)
    return EncodedShard(
        part=part,
        sources=(source,),
        tokens=np.random.default_rng(0).integers(0, birth.codebook.vocab_size, shape).astype(birth.token_dtype),
        keys=[f"{row:06d}" for row in range(rows)],
        labels=[0] * rows,
        fields={},
        rejects=[],
        ignored=[],
        execution={"precision": "fp32"},
        seconds={},
    )


def _seconds(command: list[Any]) -> float:
    started = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def _timed(owner: Any, name: str, spent: "Counter[str]", stage: str) -> None:
    """Add up the seconds that calls of `owner.name` take, outermost calls of a thread only."""
    function: Callable[..., Any] = getattr(owner, name)
    inside = threading.local()

    def timed(*arguments: Any, **options: Any) -> Any:
        if getattr(inside, "yes", False):
            return function(*arguments, **options)
        inside.yes, started = True, time.monotonic()
        try:
            return function(*arguments, **options)
        finally:
            inside.yes = False
            spent[stage] += time.monotonic() - started  # type: ignore[assignment]

    setattr(owner, name, timed)


if __name__ == "__main__":
    main()
