"""How fast a published tokenizer of real size makes tokens on a CPU: a job beside the same module called by hand.

    make bench-vqgan                                              runs this with ARGS (some ten minutes)
    python scripts/benchmarks/bench_vqgan.py --markdown docs/benchmarks.md    puts the table into the page

By hand is how published scripts extract tokens: photographs opened by PIL, batches of eight, the module as it is built,
in a process with the settings that Python and torch have by themselves. The others have those of the vqtok command.
"""

import multiprocessing
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import click
import torch
from pages import bench_command, machine, table, three_digits, times, write_section
from tokenizing.job import Incomplete, Job, write_config
from tokenizing.parts import Decode, Encode
from tokenizing.peers import WebDatasetLoop
from tokenizing.photos import Photos, read_photographs, sample_patterns, write_photos
from tokenizing.turns import Contestant, best_of
from tokenizing.vqgan import as_published, random_vqgan, save_vqgan

from pipeline.errors import VqtokError
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.process.malloc import keep_freed_memory, use_huge_pages
from pipeline.world import available_cores

JOB, BY_HAND, ENCODE = "vqtok", "the module in batches of eight", "vqtok's encoding alone"


class ByHand:
    """See the module."""

    def __init__(self, photos: Photos, channels: int, side: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        context.Process(target=_by_hand, args=(theirs, photos, channels, side, folder), daemon=True).start()
        theirs.close()

    def __call__(self) -> float:
        self._connection.send(None)
        try:
            rate: float = self._connection.recv()
        except EOFError:
            raise Incomplete("the process of the module called by hand has ended") from None
        return rate


class _Loop(WebDatasetLoop):
    """It is given all cores for each operation: trying what suits it would take as long again."""

    batch_size = 8

    def __init__(self, photos: Photos, model: Vqgan, side: int, folder: Path) -> None:
        super().__init__(photos, model, side, folder)
        self._threads = torch.get_num_threads()


def _by_hand(connection: Connection, photos: Photos, channels: int, side: int, folder: Path) -> None:
    loop = _Loop(photos, as_published(random_vqgan(channels=channels)), side, folder)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(loop())


@click.command()
@click.option("--images", default=32, show_default=True, help="Photographs in a turn.")
@click.option("--side", default=256, show_default=True, help="Pixels a side, a multiple of 16.")
@click.option("--channels", default=128, show_default=True, help="Of the network; a multiple of 32.")
@click.option("--rounds", default=1, show_default=True, help="Turns of each that count, after one that does not.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Put the section into this file.")
def main(images: int, side: int, channels: int, rounds: int, markdown: Path | None) -> None:
    """Measure LlamaGen's VQ-16 with random weights."""
    try:
        with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
            rates = _measure(Path(name), images, side, channels, rounds)
    except (Incomplete, VqtokError) as error:
        click.echo(error, err=True)
        sys.exit(1)
    lines = [["", "images/s", "vqtok to it"]]
    lines += [[who, three_digits(rate), times(rates[JOB] / rate)] for who, rate in rates.items()]
    section = (
        f"## A published tokenizer of real size\n\n`{bench_command('bench-vqgan')}`, on "
        f"{machine(['torch', 'torchvision', 'webdataset', 'zarr'])}. LlamaGen's VQ-16 with random weights, float32, "
        f"{images} photographs of {side} px.\n\n{table(lines)}\n"
    )
    click.echo(section)
    if markdown:
        write_section(markdown, "vqgan", section)


def _measure(folder: Path, images: int, side: int, channels: int, rounds: int) -> dict[str, float]:
    save_vqgan(folder / "tokenizer", random_vqgan(channels=channels))
    photos = write_photos(folder / "photos", read_photographs(sample_patterns(folder / "sample")), images)
    by_hand = ByHand(photos, channels, side, folder / "by-hand")  # before this process has settings that it inherits
    keep_freed_memory()
    use_huge_pages()
    config = write_config(folder / "job.yaml", photos.pattern, folder / "tokenizer", side, batch_size=8)
    job = Job(config, photos)
    batches = [batch.img_B3HW for batch in Decode(job.config, photos, available_cores()).batches()]
    device = torch.device("cpu")
    tokenizer = load_tokenizer(folder / "tokenizer", "raster", device)
    contestants: dict[str, Contestant] = {
        JOB: job,
        BY_HAND: by_hand,
        ENCODE: Encode(tokenizer, device, available_cores(), batches, images),
    }
    return best_of(contestants, rounds, lambda what: click.echo(what, err=True))


if __name__ == "__main__":
    main()
