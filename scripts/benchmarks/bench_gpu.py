"""How fast photographs become tokens on a GPU, with vqtok's small model and with a large one.

    make bench-gpu                                              runs this with ARGS, on the first CUDA device
    python scripts/benchmarks/bench_gpu.py --peak-tflops 989               for a GPU that is not in the table
    python scripts/benchmarks/bench_gpu.py --markdown docs/benchmarks.md   puts the tables into the page
    python scripts/benchmarks/bench_gpu.py --device cpu --quick            does it run? Its figures mean nothing

Exit status 2 without a CUDA device, 1 when a job leaves a photograph out.
"""

import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import torch
from pages import bench_command, write_section
from tokenizing.accelerators import Peak, peak_of
from tokenizing.gpu import Model, Setting, measure_model
from tokenizing.gpu_report import gpu_report
from tokenizing.job import Incomplete
from tokenizing.photos import read_photographs, sample_patterns, write_photos
from tokenizing.vqgan import random_vqgan

from pipeline.errors import VqtokError
from pipeline.models.networks.vqvae import SimpleVQVAE


@click.command()
@click.option("--source", "patterns", multiple=True, metavar="PATTERN", help="Your tars instead of the sample set.")
@click.option("--images", default=16_384, show_default=True, help="Photographs in a turn.")
@click.option("--side", default=256, show_default=True, help="Pixels a side, a multiple of 16.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "fp16", "fp32"]), default="bf16", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Turns of each, of which the best counts.")
@click.option("--compile/--no-compile", "compiles", default=True, show_default=True, help="Measure torch.compile too.")
@click.option("--peak-tflops", type=float, help="Of the device, for dense products in the precision.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--quick", is_flag=True, help="A few photographs, small models: does it run?")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/bench-gpu"),
    show_default=True,
    help="Folder for traces and pictures.",
)
@click.option("--markdown", type=click.Path(path_type=Path), help="Put the section into this file.")
def main(
    patterns: tuple[str, ...],
    images: int,
    side: int,
    batch_size: int,
    precision: str,
    rounds: int,
    compiles: bool,
    peak_tflops: float | None,
    device: str,
    quick: bool,
    out: Path,
    markdown: Path | None,
) -> None:
    """Measure tokenizing on a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        click.echo("no CUDA device here: nothing was measured (--device cpu --quick tries whether it runs)", err=True)
        sys.exit(2)
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    setting = Setting(
        device=torch.device("cuda", 0) if device == "cuda" else torch.device("cpu"),
        precision=precision,  # type: ignore[arg-type]
        side=side,
        batch_size=batch_size,
        rounds=rounds,
        compiles=compiles,
        out=out,
    )
    torch.manual_seed(0)
    models: dict[str, Model] = {"SimpleVQVAE": SimpleVQVAE(1024, 64, 128).eval()}
    if quick:
        images, setting = 16, replace(setting, side=32, batch_size=4, rounds=1)
        models["VQ-GAN"] = random_vqgan(vocab_size=64, channels=32)
    else:
        models["VQ-GAN"] = random_vqgan()
    peak = peak_of(torch.cuda.get_device_name(setting.device)) if device == "cuda" else None
    if peak_tflops:
        peak = replace(peak, bf16_tflops=peak_tflops) if peak else Peak(peak_tflops, math.inf, math.inf)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
            folder = Path(name)
            photos = write_photos(
                folder / "photos", read_photographs(patterns or sample_patterns(folder / "sample")), images
            )
            results = [measure_model(title, model, photos, folder, setting, _say) for title, model in models.items()]
    except (Incomplete, VqtokError) as error:
        click.echo(error, err=True)
        sys.exit(1)
    section = gpu_report(results, images, setting, peak, bench_command("bench-gpu"))
    click.echo(section)
    if markdown:
        write_section(markdown, "gpu", section)


def _say(what: str) -> None:
    click.echo(what, err=True)


if __name__ == "__main__":
    main()
