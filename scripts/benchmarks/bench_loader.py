"""How fast tokens are read, beside other loaders over the same rows.

    make bench-loader                                   installs the loaders, and runs this with ARGS
    bench_loader.py                                     all loaders that are installed, 10 to 20 minutes
    bench_loader.py --only vqtok-raw --only memmap      two of them
    bench_loader.py --also my_module:MyPeer             one more, see loaders/peer.py
    bench_loader.py --markdown docs/benchmarks.md       puts the tables into the page

It takes 4 GB in TMPDIR, which should be the kind of disk that tokens are read from.
Exit status 1 when a loader lost, repeated or damaged a row, or broke.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
from loaders.opening import seconds_to_open
from loaders.report import report
from loaders.rounds import Entry, Plan, measure
from pages import bench_command, write_section

ENTRIES = {
    "memmap": Entry("memmap in blocks", "loaders.memmap:Memmap"),
    "memmap-index": Entry("np.memmap, indexed", "loaders.memmap:MemmapIndexed", files="memmap"),
    "vqtok-raw": Entry("vqtok, raw", "loaders.vqtok:VqtokRaw"),
    "vqtok-lz4": Entry("vqtok, lz4", "loaders.vqtok:Vqtok", files="vqtok-lz4"),
    "vqtok-idx": Entry("vqtok, lz4, with idx_Bl", "loaders.vqtok:VqtokIndices", files="vqtok-lz4"),
    "vqtok-key": Entry("vqtok, lz4, with key", "loaders.vqtok:VqtokKeys", files="vqtok-lz4"),
    "zarr": Entry("zarr-python in blocks", "loaders.blocks:ZarrBlocks"),
    "litdata": Entry("litData", "loaders.litdata:LitData", needs="litdata", share=4),
    "mosaic": Entry("Mosaic streaming", "loaders.mosaic:Mosaic", needs="streaming", share=32),
    "webdataset": Entry("webdataset", "loaders.webdataset:WebDataset", needs="webdataset", share=32),
}
OPENING = "opening"


@click.command()
@click.option("--rows", default=262_144, show_default=True, help="Rows of a fast loader; slow ones get a share.")
@click.option("--tokens", type=int, multiple=True, default=(256, 1024), show_default=True, help="Tokens a row.")
@click.option("--workers", type=int, multiple=True, default=(0, 2), show_default=True, help="Worker processes.")
@click.option("--only", type=click.Choice([*ENTRIES, OPENING]), multiple=True, help="Leave out all others.")
@click.option("--also", multiple=True, metavar="MODULE:CLASS", help="A loader of your own, from PYTHONPATH.")
@click.option("--rounds", default=3, show_default=True, help="Turns of every loader under every condition.")
@click.option("--seconds", default=0.5, show_default=True, help="Length of a turn; at least one epoch.")
@click.option("--parts", default=10_000, show_default=True, help="Parts of the store that is opened.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Put the section into this file.")
def main(
    rows: int,
    tokens: tuple[int, ...],
    workers: tuple[int, ...],
    only: tuple[str, ...],
    also: tuple[str, ...],
    rounds: int,
    seconds: float,
    parts: int,
    markdown: Path | None,
) -> None:
    """Measure loaders over the same rows."""
    started = time.monotonic()
    entries = {name: entry for name, entry in ENTRIES.items() if name in (only or ENTRIES)}
    entries |= {peer: Entry(peer, peer) for peer in also}
    plan = Plan(entries, rows, tokens, workers, rounds, seconds)
    # Worker processes that each start as many threads as there are cores measure the scheduler.
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="vqtok-bench-"))
    try:
        results = measure(plan, folder, _say)
        opening = (parts, seconds_to_open(folder / OPENING, parts, rounds)) if OPENING in (only or [OPENING]) else None
    finally:
        shutil.rmtree(folder)
    section = report(plan, results, opening, bench_command("bench-loader"))
    click.echo(section)
    if markdown:
        write_section(markdown, "loader", section)
    _say(f"{time.monotonic() - started:.0f} s")
    failures = [(name, condition, result.reason) for (name, condition), result in results.items() if result.failed]
    for name, condition, reason in failures:
        place = f"{condition.tokens} tokens, {condition.pattern}, {condition.workers} workers"
        click.echo(f"{entries[name].title}: {place}: {reason}", err=True)
    sys.exit(1 if failures else 0)


def _say(what: str) -> None:
    click.echo(what, err=True)


if __name__ == "__main__":
    main()
