"""Where the time of encoding goes: one batch after the other under torch's profiler, stage by stage."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import Tokenizer

COPY, NORMALISE, ENCODE, SEARCH, FETCH = "copy to device", "normalise", "encode", "search", "copy back"
STAGES = (COPY, NORMALISE, ENCODE, SEARCH, FETCH)

_BAR_WIDTH, _ROW_HEIGHT, _TEXT_WIDTH = 480, 28, 260


def milliseconds_by_stage(
    tokenizer: Tokenizer, quantize: VectorQuantizer, device: torch.device, batches: Sequence[Tensor], trace: Path
) -> dict[str, float]:
    """Milliseconds of a batch by stage: of kernels and copies on a GPU, of the calls on a CPU.

    Args:
        quantize: what `tokenizer` searches with.
        batches: uint8 [B, 3, H, W] in the host's memory; the first is not measured.
        trace: where what the profiler saw is written, for chrome://tracing or Perfetto.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch.inference_mode(), _recorded_search(quantize):
        _encode(tokenizer, device, batches[0])
        with profile(activities=activities) as profiler:
            for batch in batches[1:]:
                _encode(tokenizer, device, batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    profiler.export_chrome_trace(str(trace))
    spent = dict.fromkeys(STAGES, 0.0)
    for event in profiler.events() or ():
        if event.name in spent and event.device_type.name == "CPU":
            micros = _kernel_micros(event) if device.type == "cuda" else event.cpu_time_total
            spent[event.name] += micros / 1000 / (len(batches) - 1)
    spent[ENCODE] -= spent[SEARCH]  # which runs inside
    return spent


def draw(spent: dict[str, float], title: str, file: Path) -> None:
    """A bar for each stage, as long as its share of all of them."""
    image = Image.new("RGB", (_TEXT_WIDTH + _BAR_WIDTH, _ROW_HEIGHT * (len(spent) + 1)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((8, 8), title, "black")
    total = sum(spent.values())
    for row, (stage, milliseconds) in enumerate(spent.items(), start=1):
        top = row * _ROW_HEIGHT
        share = milliseconds / total
        pen.text((8, top + 8), f"{stage}: {milliseconds:.3f} ms, {100 * share:.1f} %", "black")
        pen.rectangle(
            (_TEXT_WIDTH, top + 4, _TEXT_WIDTH + share * (_BAR_WIDTH - 8), top + _ROW_HEIGHT - 4), "steelblue"
        )
    image.save(file)


def _kernel_micros(event: Any) -> float:
    """Of the kernels and copies that were launched within this call; the stage itself is on the device's row too."""
    own = sum(kernel.duration for kernel in event.kernels if kernel.name not in STAGES)
    return float(own + sum(_kernel_micros(child) for child in event.cpu_children))


def _encode(tokenizer: Tokenizer, device: torch.device, img_B3HW: Tensor) -> None:
    with record_function(COPY):
        on_device = img_B3HW.to(device)
    with record_function(NORMALISE):
        pixels = normalize_pixels(on_device, tokenizer.normalization)
    with record_function(ENCODE):
        idx_Bl = tokenizer.encode(pixels)
    with record_function(FETCH):
        torch.cat(idx_Bl, dim=1).cpu()


@contextlib.contextmanager
def _recorded_search(quantize: VectorQuantizer) -> Iterator[None]:
    """For a while, the search of this quantizer is a stage of its own."""
    search = quantize.search

    def recorded(z_BChw: Tensor) -> Tensor:
        with record_function(SEARCH):
            return search(z_BChw)

    quantize.search = recorded  # type: ignore[method-assign]
    try:
        yield
    finally:
        del quantize.search
