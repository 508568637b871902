"""How fast the threads of one process turn photographs into batches of pixels, and what Python takes of it.

    make bench-feed                                   runs this with ARGS (two minutes)
    python scripts/benchmarks/bench_feed.py --threads 1 --threads 16 --source 'photos/*.tar'

What Python does for an image, threads do one after the other: its inverse is the most that one process can decode,
on however many cores. Reading the tars is part of it; its sha256 is not, for that lets others go on.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from pages import bench_command, machine, table, three_digits, times, write_section
from tokenizing.job import Incomplete, save_random_model, write_config
from tokenizing.parts import Decode, DecodeLimit
from tokenizing.photos import Photos, read_photographs, sample_patterns, write_photos
from tokenizing.turns import best_of

from pipeline.config import Config, load_config
from pipeline.errors import VqtokError
from pipeline.process.malloc import keep_freed_memory
from pipeline.source.find import find_source_shards
from pipeline.source.reading import open_shard
from pipeline.world import available_cores


@click.command()
@click.option("--source", "patterns", multiple=True, metavar="PATTERN", help="Your tars instead of the sample set.")
@click.option("--images", default=4096, show_default=True, help="Photographs in a turn.")
@click.option("--side", default=256, show_default=True, help="Pixels a side.")
@click.option(
    "--threads", multiple=True, type=click.IntRange(1), help="Repeatable; by default 1, 2, 4, up to all cores."
)
@click.option("--rounds", default=3, show_default=True, help="Turns of each, of which the best counts.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Put the section into this file.")
def main(
    patterns: tuple[str, ...], images: int, side: int, threads: tuple[int, ...], rounds: int, markdown: Path | None
) -> None:
    """Measure decoding without encoding."""
    keep_freed_memory()
    torch.set_num_threads(1)
    threads = threads or tuple(count for count in (1, 2, 4, 8, 16, 32) if count <= available_cores())
    try:
        with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
            folder = Path(name)
            files = read_photographs(patterns or sample_patterns(folder / "sample"))
            photos = write_photos(folder / "photos", files, images)
            tokenizer = save_random_model(folder / "tokenizer", 32, 8, 8)
            config = load_config(write_config(folder / "job.yaml", photos.pattern, tokenizer, side))
            lines = _rates(config, photos, threads, rounds)
            python_us = _python_us(config, photos, side, rounds)
    except (Incomplete, VqtokError) as error:
        click.echo(error, err=True)
        sys.exit(1)
    section = (
        f"## Feeding\n\n`{bench_command('bench-feed')}`, on {machine(['torch', 'torchvision'])}. {images:,} "
        f"photographs to {side} px.\n\n{table(lines)}\n\nOutside the operators that decode, resize and hash, "
        f"{python_us:.0f} µs of CPU time an image: in Python, and in copies.\n"
    )
    click.echo(section)
    if markdown:
        write_section(markdown, "feed", section)


def _rates(config: Config, photos: Photos, threads: tuple[int, ...], rounds: int) -> list[list[str]]:
    contestants = {str(count): Decode(config, photos, count) for count in threads}
    rates = best_of(contestants, rounds, lambda line: click.echo(line, err=True))
    first, *_ = rates.values()
    return [
        ["threads", "images/s", "to the first"],
        *([name, three_digits(rate), times(rate / first)] for name, rate in rates.items()),
    ]


def _python_us(config: Config, photos: Photos, side: int, rounds: int) -> float:
    """CPU time of one decoding thread and its reader, without that of the operators and of the digests."""
    reading = _cpu_seconds(lambda: _read(config, digests=True), rounds)
    hashing = reading - _cpu_seconds(lambda: _read(config, digests=False), rounds)
    operators = _cpu_seconds(DecodeLimit(photos, side, 1), rounds)
    whole = _cpu_seconds(Decode(config, photos, 1), rounds)
    return (whole - operators - max(hashing, 0)) / len(photos) * 1e6


def _read(config: Config, digests: bool) -> None:
    for shard in find_source_shards(config.source):
        for _ in open_shard(shard, config.source, digests=digests):
            pass


def _cpu_seconds(work: Callable[[], object], rounds: int) -> float:
    """The least of some turns."""
    found = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


if __name__ == "__main__":
    main()
