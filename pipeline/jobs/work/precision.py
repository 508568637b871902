"""Precisions that a processor has no instructions for, and computes all the same, many times slower."""

import json
import time
from pathlib import Path

import torch

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.work.siblings import current_siblings
from pipeline.models.pretrained import load_tokenizer
from pipeline.models.tokenizer import Tokenizer, normalize_pixels
from pipeline.threads import cpu_threads

# Slower by so much is no accident of measuring.
_CLEARLY = 1.5
_SIDE = 64
_PIXELS = 65_536
_SECONDS = 0.4
_ROUNDS = 5
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last as ARM calls it


def refuse_slow_precision(config: Config, tokenizer: Tokenizer, device: torch.device) -> None:
    """Raise ConfigError where the device encodes much more slowly in `tokenize.precision` than in float32.

    Measured on CPUs alone, in a fraction of a second, once for all processes of a launch. What counts is the CPU time
    of one thread, so that others who use the cores make little difference.
    """
    precision = config.tokenize.precision
    if device.type != "cpu" or precision == "fp32":
        return
    siblings = current_siblings()

    def measure() -> str:
        return json.dumps(_milliseconds_per_image(config, tokenizer))

    low_ms, full_ms = json.loads(siblings.once("precision", measure) if siblings else measure())
    if low_ms > _CLEARLY * full_ms:
        height, width = _probe_size(config, tokenizer)
        raise ConfigError(
            f"tokenize.precision: {precision} is {low_ms / full_ms:.1f} times slower than fp32 on this processor, "
            f"as if it had no instructions for it: {low_ms:.2f} against {full_ms:.2f} ms of a core for an image of "
            f"{height} x {width} pixels; set tokenize.precision=fp32, or accept it with --allow-slow"
        )


def bf16_would_help(precision: str, device: torch.device) -> bool:
    """Whether a device that encodes in `precision` has faster instructions for bfloat16."""
    if precision in ("bf16", "fp16"):
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(_cpu_flags() & _BF16_FLAGS)


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}


def _probe_size(config: Config, tokenizer: Tokenizer) -> tuple[int, int]:
    """Height and width of the images to measure with: small, for a large model takes seconds for a whole one."""
    unit = tokenizer.downsampling
    side = -(-_SIDE // unit) * unit
    height, width = config.image.size
    return min(height, side), min(width, side)


def _milliseconds_per_image(config: Config, tokenizer: Tokenizer) -> tuple[float, float]:
    """CPU time of one thread in the precision of `tokenizer`, and in float32: the best of some turns each."""
    full = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu")
    height, width = _probe_size(config, tokenizer)
    batch = min(config.tokenize.batch_size, max(1, _PIXELS // (height * width)))
    img_B3HW = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    best = [float("inf")] * 2
    started = time.thread_time()
    with cpu_threads(1), torch.inference_mode():
        pixels = normalize_pixels(img_B3HW, tokenizer.normalization)
        for number in range(_ROUNDS + 1):
            for which, encoder in enumerate((tokenizer, full)):
                before = time.thread_time()
                encoder.encode(pixels)
                if number:  # the first turn prepares
                    best[which] = min(best[which], time.thread_time() - before)
            if number and time.thread_time() - started > _SECONDS:
                break
    low, high = (1e3 * seconds / batch for seconds in best)
    return low, high
