"""Results of `bench_gpu.py` as Markdown."""

from collections.abc import Callable, Sequence

import torch
from pages import machine, percent, table, three_digits

from tokenizing.accelerators import Peak
from tokenizing.gpu import COMPILED, DECODE, DECODERS, ENCODE, LAUNCHED, GpuResult, Setting, decoder_name

VERSIONS = ("torch", "torchvision")
NONE = "–"

HOW = """`{command}`, on {device}, {machine}.

{images:,} photographs of {side} px, {precision}, batches of {batch_size}; untrained weights, the best of {rounds}
turns. Decoding runs on the host beside encoding on the device, so that the slower of the two bounds the job. Decoding
alone is that of one process, which more processes exceed.
Utilisation is the encoder's FLOPs over the peak of {peak}. The search is as exact as
float32; its roofline is that of such products, in three of TF32 where that is faster, and of memory. Traces, and
pictures of kernel time by stage, are in `{out}`."""


def gpu_report(results: Sequence[GpuResult], images: int, setting: Setting, peak: Peak | None, command: str) -> str:
    """The whole section, `## On a GPU`."""
    how = HOW.format(
        command=command,
        device=torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else setting.device,
        machine=machine(VERSIONS),
        images=images,
        side=setting.side,
        precision=setting.precision,
        batch_size=setting.batch_size,
        rounds=setting.rounds,
        peak=f"{peak.bf16_tflops:g} TFLOP/s" if peak else "a device that is not known (`--peak-tflops`)",
        out=setting.out,
    )
    return "\n\n".join(["## On a GPU", how, _speed(results, peak), _stages(results), *_skipped(results)]) + "\n"


def _speed(results: Sequence[GpuResult], peak: Peak | None) -> str:
    lines = [["", *(result.title for result in results)]]

    def add(title: str, value: Callable[[GpuResult], str]) -> None:
        lines.append([title, *(value(result) for result in results)])

    add("parameters of the encoder", lambda each: f"{each.parameters:,}")
    add("GFLOP an image", lambda each: f"{each.flops / 1e9:,.2f}")
    for name in (*map(decoder_name, DECODERS), LAUNCHED, DECODE, ENCODE, COMPILED):
        add(f"{name}, images/s", lambda each, name=name: three_digits(each.rates[name]) if name in each.rates else NONE)  # type: ignore[misc]
    job = decoder_name("torchvision")
    for name in (job, LAUNCHED):
        add(f"{name}, of what both allow", lambda each, name=name: percent(each.rates[name] / each.bound))  # type: ignore[misc]
    add("search of a batch", lambda each: f"{1000 * each.search_seconds:.3f} ms")
    add("search of a batch by torch", lambda each: f"{1000 * each.torch_search_seconds:.3f} ms")
    if peak:
        for name in (job, ENCODE, COMPILED):
            add(f"{name}, FLOP utilisation", lambda each, name=name: _utilisation(each, name, peak))  # type: ignore[misc]
        add("search, of its roofline", lambda each: percent(each.search_work.least_seconds(peak) / each.search_seconds))
    return table(lines)


def _utilisation(result: GpuResult, name: str, peak: Peak) -> str:
    return percent(result.utilisation(name, peak.bf16_tflops)) if name in result.rates else NONE


def _stages(results: Sequence[GpuResult]) -> str:
    lines = [["ms of a batch", *(result.title for result in results)]]
    rows = ([stage, *(f"{result.stages[stage]:.3f}" for result in results)] for stage in results[0].stages)
    return table([*lines, *rows])


def _skipped(results: Sequence[GpuResult]) -> list[str]:
    reasons = {decoder: reason for result in results for decoder, reason in result.skipped.items()}
    return [f"Without the decoder {decoder}: {reason}." for decoder, reason in reasons.items()]
