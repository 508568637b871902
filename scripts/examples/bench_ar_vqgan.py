"""What stored tokens save where the tokenizer is of real size: LlamaGen's VQ-16, before training or in its loop.

    make bench-ar-vqgan

The tokenizer has random weights, which cost what trained ones do. It is made here, and so are photographs of 256 pixels
and their store; the steps are those of bench_ar.py. In the loop whole batches are encoded at once, as trainers do it.
Prints a Markdown table for docs/trainers.md.
"""

import tempfile
import time
from pathlib import Path

import click
from bench_ar import compare
from pages import machine
from tokenizing.job import Job, write_config
from tokenizing.photos import read_photographs, sample_patterns, write_photos
from tokenizing.vqgan import random_vqgan, save_vqgan
from training.transformer import Size

SIZES: dict[str, Size | None] = {
    "none, the batches alone": None,
    "dim 128, depth 4": Size(dim=128, depth=4, heads=4),
    "dim 384, depth 6": Size(dim=384, depth=6, heads=6),
    "dim 768, depth 12 (GPT-B)": Size(dim=768, depth=12, heads=12),
}


@click.command()
@click.option("--batch-size", default=8, show_default=True, help="Photographs of a step.")
@click.option("--batches", default=1, show_default=True, help="Steps in a round.")
@click.option("--rounds", default=2, show_default=True, help="Rounds of each side, in turns; the fastest counts.")
@click.option("--side", default=256, show_default=True, help="Pixels a side, a multiple of 16.")
@click.option("--channels", default=128, show_default=True, help="Of the tokenizer; a multiple of 32.")
@click.option("--largest", default=len(SIZES), show_default=True, help="How many of the transformers.")
@click.option("--cpu-time", is_flag=True, help="Count the CPU time of all threads: where others use the cores, too.")
def main(batch_size: int, batches: int, rounds: int, side: int, channels: int, largest: int, cpu_time: bool) -> None:
    """Measure training steps from stored tokens and with a tokenizer of real size in the loop, side by side."""
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
        folder = Path(name)
        model = random_vqgan(channels=channels)
        save_vqgan(folder / "tokenizer", model)
        weights = sum(weight.numel() for weight in model.parameters()) / 1e6
        print(f"{machine(['torch'])}; a tokenizer of {weights:.0f} M weights, {batch_size} images of {side} px a step")
        files = read_photographs(sample_patterns(folder / "sample"))
        photos = write_photos(folder / "photos", files, batch_size * batches)
        file = folder / "job.yaml"
        job = Job(write_config(file, photos.pattern, folder / "tokenizer", side, batch_size=batch_size), photos)
        job()
        clock = time.process_time if cpu_time else time.monotonic
        compare(job.config, dict(list(SIZES.items())[:largest]), batches, rounds, clock)


if __name__ == "__main__":
    main()
