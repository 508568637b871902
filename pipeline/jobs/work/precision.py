"""Precisions that a processor has no instructions for, and computes all the same, many times slower."""

import copy
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from pipeline.config import Config
from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.work.instructions import cpu_has_bf16
from pipeline.jobs.work.siblings import current_siblings
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.process.threads import cpu_threads

if TYPE_CHECKING:
    from accelerate import Accelerator

# A ratio of times that is more than the noise of measuring them.
_CLEARLY = 1.5
_SIDE = 64
_PIXELS = 65_536
_SECONDS = 0.4
_ROUNDS = 5


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
        size = _probe_size(config.image.size, tokenizer.downsampling, tokenizer.geometry)
        raise _too_slow("tokenize.precision", precision, low_ms, full_ms, size)


def refuse_slow_training(config: Config, model: SimpleVQVAE | Vqgan, accelerator: "Accelerator") -> None:
    """Raise ConfigError where the device trains much more slowly in `train.precision` than in float32.

    All ranks call this together; the first of them measures, as above.
    """
    precision = config.train.precision
    if accelerator.device.type != "cpu" or precision == "fp32":
        return
    size = _probe_size(config.image.size, model.downsampling, lambda size: model.grid_of(*size))
    from accelerate.utils import broadcast_object_list  # there already, where a model is trained

    measured = [_training_milliseconds(model, size) if accelerator.is_main_process else (0.0, 0.0)]
    broadcast_object_list(measured)
    low_ms, full_ms = measured[0]
    if low_ms > _CLEARLY * full_ms:
        raise _too_slow("train.precision", precision, low_ms, full_ms, size)


def _too_slow(key: str, precision: str, low_ms: float, full_ms: float, size: tuple[int, int]) -> ConfigError:
    return ConfigError(
        f"{key}: {precision} is {low_ms / full_ms:.1f} times slower than fp32 on this processor, as if it had no "
        f"instructions for it: {low_ms:.2f} against {full_ms:.2f} ms of a core for an image of {size[0]} x {size[1]} "
        f"pixels; set {key}=fp32, or accept it with --allow-slow"
    )


def bf16_would_help(precision: str, device: torch.device) -> bool:
    """Whether a device that encodes in `precision` has faster instructions for bfloat16."""
    if precision in ("bf16", "fp16"):
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16()


def _probe_size(size: tuple[int, int], downsampling: int, take: Callable[[tuple[int, int]], object]) -> tuple[int, int]:
    """Height and width of the images to measure with: small, for a large model takes seconds for a whole one.

    Args:
        take: raises TokenizerError for a size that the model cannot take, as where its scales end in one grid.
    """
    side = -(-_SIDE // downsampling) * downsampling
    small = min(size[0], side), min(size[1], side)
    try:
        take(small)
    except TokenizerError:
        return size
    return small


def _milliseconds_per_image(config: Config, tokenizer: Tokenizer) -> tuple[float, float]:
    """CPU time of one thread to encode in the precision of `tokenizer`, and in float32."""
    full = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu", storage=config.tokenizer.storage)
    size = _probe_size(config.image.size, tokenizer.downsampling, tokenizer.geometry)
    batch = min(config.tokenize.batch_size, _probe_batch(size))
    pixels = normalize_pixels(torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8), tokenizer.normalization)
    with torch.inference_mode():
        return _best_ms(lambda: tokenizer.encode(pixels), lambda: full.encode(pixels), batch)


def _training_milliseconds(model: SimpleVQVAE | Vqgan, size: tuple[int, int]) -> tuple[float, float]:
    """CPU time of one thread to go through a model forwards and backwards in bfloat16, and in float32."""
    probe, batch = copy.deepcopy(model).eval(), _probe_batch(size)  # in evaluation the codebook is left alone
    img_B3HW = torch.zeros(batch, 3, *size)

    def step(low: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            reconstruction_B3HW, loss, _ = probe(img_B3HW)
            (reconstruction_B3HW.float().square().mean() + loss).backward()

    return _best_ms(lambda: step(True), lambda: step(False), batch)


def _probe_batch(size: tuple[int, int]) -> int:
    return max(1, _PIXELS // (size[0] * size[1]))


def _best_ms(low: Callable[[], object], full: Callable[[], object], images: int) -> tuple[float, float]:
    """CPU time of one thread for an image: the best of some turns each, which alternate."""
    best = [float("inf")] * 2
    started = time.thread_time()
    with cpu_threads(1):
        for number in range(_ROUNDS + 1):
            for which, call in enumerate((low, full)):
                before = time.thread_time()
                call()
                if number:  # the first turn prepares
                    best[which] = min(best[which], time.thread_time() - before)
            if number and time.thread_time() - started > _SECONDS:
                break
    low_ms, full_ms = (1e3 * seconds / images for seconds in best)
    return low_ms, full_ms
