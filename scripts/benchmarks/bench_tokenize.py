"""How fast photographs become tokens, beside other ways to make the same ones, and what bounds it.

    make bench-tokenize                                 runs this with ARGS, at most about 15 minutes
    bench_tokenize.py --source 'photos-*.tar'           on your photographs
    bench_tokenize.py --growth quick                    cost as vocabulary, image and collection grow
    bench_tokenize.py --markdown docs/benchmarks.md     puts the tables into the page

It takes 1 GB in TMPDIR, which should be the kind of disk that tokens are written to. Where other work wants the cores
too, OMP_WAIT_POLICY=passive, set unless the environment says otherwise, keeps torch's threads from taking them while
they wait for each other.
Exit status 1 when anything of it leaves a photograph out.
"""

from pipeline.process.openmp import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is imported

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
from pages import bench_command, write_section
from tokenizing.growth import SETTINGS, growth_report
from tokenizing.job import Incomplete, save_random_model
from tokenizing.photos import read_photographs, sample_patterns
from tokenizing.processes import OneCoreProcesses
from tokenizing.report import report
from tokenizing.roofline import ProductRates
from tokenizing.sides import DTYPES, Effort, measure_side

from pipeline.errors import VqtokError
from pipeline.process.malloc import keep_freed_memory
from pipeline.world import available_cores

SIDES = (32, 64, 256)
QUICK = Effort(seconds=0, rounds=1, images=32)
QUICK_SIDES = (32,)


@click.command()
@click.option("--side", "sides", type=int, multiple=True, default=SIDES, show_default=True, help="Pixels a side.")
@click.option("--source", "patterns", multiple=True, metavar="PATTERN", help="Your tars instead of the sample set.")
@click.option("--seconds", default=2.0, show_default=True, help="What a turn of vqtok takes, about.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each, of which the best counts.")
@click.option("--minutes", default=15.0, show_default=True, help="Of it all: rounds are left out to keep to it.")
@click.option("--growth", type=click.Choice(list(SETTINGS)), help="Measure growth and nothing else.")
@click.option("--quick", is_flag=True, help="32 photographs of 32 px and one turn: does it run?")
@click.option("--markdown", type=click.Path(path_type=Path), help="Put the section into this file.")
def main(
    sides: tuple[int, ...],
    patterns: tuple[str, ...],
    seconds: float,
    rounds: int,
    minutes: float,
    growth: str | None,
    quick: bool,
    markdown: Path | None,
) -> None:
    """Measure tokenizing."""
    started = time.monotonic()
    keep_freed_memory()  # as the vqtok command does; the others have it too
    folder = Path(tempfile.mkdtemp(prefix="vqtok-bench-"))
    try:
        if growth:
            name, section = "growth", growth_report(SETTINGS[growth], folder, bench_command("bench-tokenize"), _say)
        else:
            effort, sides = (QUICK, QUICK_SIDES) if quick else (Effort(seconds, rounds, limit_s=60 * minutes), sides)
            name, section = "tokenize", _measure(sides, patterns, effort, folder)
    except (Incomplete, VqtokError) as error:
        click.echo(error, err=True)
        sys.exit(1)
    finally:
        shutil.rmtree(folder)
    click.echo(section)
    if markdown:
        write_section(markdown, name, section)
    _say(f"{time.monotonic() - started:.0f} s")


def _measure(sides: tuple[int, ...], patterns: tuple[str, ...], effort: Effort, folder: Path) -> str:
    started = time.monotonic()
    photographs = "your own" if patterns else "the crops of `vqtok sample`"
    files = read_photographs(patterns or sample_patterns(folder / "sample"))
    _say(f"{len(files):,} photographs, {sum(map(len, files)) / len(files) / 1e3:,.1f} kB each")
    tokenizer = save_random_model(folder / "tokenizer")
    with OneCoreProcesses(2) as processes:
        rates = ProductRates(list(DTYPES.values()), available_cores())
        results = []
        for number, side in enumerate(sides):
            left_s = effort.limit_s - (time.monotonic() - started)
            share = replace(effort, limit_s=left_s / (len(sides) - number))
            results.append(measure_side(side, files, tokenizer, share, processes, rates, _say))
    return report(results, rates, effort, photographs, bench_command("bench-tokenize"))


def _say(what: str) -> None:
    click.echo(what, err=True)


if __name__ == "__main__":
    main()
