"""How cost grows with the vocabulary, the image and the collection."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from measured import Measured, run_measured
from pages import machine, table, three_digits
from PIL import Image
from torch import Tensor
from webdataset import TarWriter

from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.store import TokenStore
from pipeline.world import available_cores
from tokenizing.job import Incomplete, save_random_model, write_config
from tokenizing.parts import Encode
from tokenizing.turns import best_of

TINY = 8
"""Side in pixels of the images of which there are many: the pipeline costs more than the model."""
SAMPLES_IN_A_TAR = 1000


@dataclass(frozen=True)
class Growth:
    """What grows, and how far."""

    vocab_sizes: Sequence[int]
    sides: Sequence[int]
    samples: Sequence[int]
    pixels: int
    """Encoded in a turn."""
    rounds: int


SETTINGS = {
    "tiny": Growth((16, 64), (32, 64), (1000, 2000), pixels=64 * 32**2, rounds=1),
    "quick": Growth((16, 256, 4096, 65_536), (32, 128, 512, 1024), (1000, 10_000, 50_000), 8 * 256**2, rounds=2),
    "full": Growth(
        (16, 64, 256, 1024, 4096, 16_384, 65_536),
        (32, 64, 128, 256, 512, 1024),
        (1000, 10_000, 100_000, 1_000_000),
        pixels=64 * 256**2,
        rounds=3,
    ),
}

HOW = """`{command}`, on {machine}. Encoding alone, the best of {rounds} turns; and whole jobs over images of
8 px, in tars of 1,000, each in a process of its own whose imports count."""


def growth_report(growth: Growth, folder: Path, command: str, say: Callable[[str], None]) -> str:
    """The section `## Growth`. Raises Incomplete where a job leaves a sample out."""
    how = HOW.format(command=command, machine=machine(("torch",)), rounds=growth.rounds)
    parts = ["## Growth", how, _vocab_sizes(growth, folder, say), _sides(growth, folder, say)]
    return "\n\n".join([*parts, _samples(growth.samples, folder, say)]) + "\n"


def _vocab_sizes(growth: Growth, folder: Path, say: Callable[[str], None]) -> str:
    side = min(64, max(growth.sides))
    folders = {size: save_random_model(folder / f"vocab-{size}", size) for size in growth.vocab_sizes}
    rates = _encode({str(size): (path, side) for size, path in folders.items()}, growth, say)
    lines = [[f"codes, {side} px", "images/s", "µs a token"]]
    for size in growth.vocab_sizes:
        rate = rates[str(size)]
        lines.append([f"{size:,}", three_digits(rate), f"{1e6 / rate / (side // 4) ** 2:.2f}"])
    return table(lines)


def _sides(growth: Growth, folder: Path, say: Callable[[str], None]) -> str:
    path = save_random_model(folder / "tokenizer")
    rates = _encode({str(side): (path, side) for side in growth.sides}, growth, say)
    lines = [["pixels a side, 1,024 codes", "images/s", "µs a token"]]
    for side in growth.sides:
        rate = rates[str(side)]
        lines.append([f"{side:,}", three_digits(rate), f"{1e6 / rate / (side // 4) ** 2:.2f}"])
    return table(lines)


def _encode(cases: Mapping[str, tuple[Path, int]], growth: Growth, say: Callable[[str], None]) -> dict[str, float]:
    """Images/s of encoding, by case: a tokenizer folder and the side of the images."""
    contestants = {
        name: Encode(
            load_tokenizer(path, "raster"),
            torch.device("cpu"),
            available_cores(),
            [_noise(side, growth.pixels)],
            growth.pixels // side**2,
        )
        for name, (path, side) in cases.items()
    }
    return best_of(contestants, growth.rounds, say)


def _noise(side: int, pixels: int) -> Tensor:
    """A batch of random pixels, uint8 [B, 3, side, side]; all sizes have about equally many, but work for all cores."""
    images = max(available_cores(), min(32, pixels // side**2))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=generator)


def _samples(counts: Sequence[int], folder: Path, say: Callable[[str], None]) -> str:
    tokenizer = save_random_model(folder / "small", 512, 8, 8)
    one = _tiny_tar(folder / "one.tar")
    lines = [["samples", "s", "samples/s", "peak RSS, MiB"]]
    for count in counts:
        source = folder / f"source-{count}"
        source.mkdir()
        for number in range(count // SAMPLES_IN_A_TAR):
            os.link(one, source / f"tiny-{number:06d}.tar")
        config = write_config(folder / f"job-{count}.yaml", str(source / "*.tar"), tokenizer, TINY)
        took = _run(config, count)
        say(f"  {count:,} samples: {took.seconds:.1f} s, {took.peak_mib:,.0f} MiB")
        rate = three_digits(count / took.seconds)
        lines.append([f"{count:,}", f"{took.seconds:,.1f}", rate, f"{took.peak_mib:,.0f}"])
    return table(lines)


def _tiny_tar(path: Path) -> Path:
    with TarWriter(str(path)) as writer:
        for number in range(SAMPLES_IN_A_TAR):
            jpeg = io.BytesIO()
            Image.new("RGB", (TINY, TINY), (number % 256, number // 4 % 256, 128)).save(jpeg, "JPEG")
            writer.write({"__key__": f"{number:04d}", "jpg": jpeg.getvalue()})
    return path


def _run(config: Path, samples: int) -> Measured:
    """A job in a process of its own."""
    command = [sys.executable, "-m", "pipeline", "tokenize", "--no-progress", "--config", str(config)]
    try:
        took = run_measured(command)
    except subprocess.CalledProcessError as error:
        raise Incomplete(f"{config}: exit status {error.returncode}") from error
    rows = len(TokenStore(config.with_suffix(".store")))
    if rows != samples:
        raise Incomplete(f"{config}: {rows:,} rows, not {samples:,}")
    return took
