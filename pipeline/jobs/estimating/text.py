"""An estimate for people, with the arithmetic."""

import math

from pipeline.jobs.estimating.estimate import Estimate
from pipeline.jobs.terminal import aligned

_TB, _GB, _MB, _KB = 10**12, 10**9, 10**6, 10**3


def as_text(estimate: Estimate) -> str:
    """A line for each figure."""
    return "\n".join(aligned([[name, text] for name, text in _rows(estimate) if text]))


def _rows(estimate: Estimate) -> list[tuple[str, str]]:
    measured, processes = estimate.measured, estimate.processes
    looked = sum(look.samples for look in measured.looks)
    cores = f"{measured.cores} CPU core{'' if measured.cores == 1 else 's'}"
    device = f"{measured.device}, {cores}" if measured.on_gpu else cores
    return [
        ("source", f"{estimate.source_shards:,} source shards, {_size(estimate.source_bytes)}"),
        (
            "looked at",
            f"{looked:,} images in {len(measured.looks)} of them, {measured.seconds:.1f} s without the first batch",
        ),
        ("images", _images(estimate)),
        ("stages alone", ", ".join(f"{name} {rate:,.0f}" for name, rate in measured.stages.items()) + " images/s"),
        ("one process", f"{estimate.images_per_second:,.1f} images/s on {device}"),
        ("bounds", str(measured.bounds) if measured.bounds else ""),
        ("time", _time(estimate)),
        ("GPU-hours" if measured.on_gpu else "process hours", _process_hours(estimate)),
        ("cost", _cost(estimate)),
        ("store", _store(estimate)),
        ("supposed", _supposed(processes, device)),
    ]


def _supposed(processes: int, device: str) -> str:
    if processes == 1:
        return f"that the process has {device}, and that storage keeps up with it"
    return f"that {processes:,} processes have {device} each, and that storage keeps up with all of them"


def _processes(count: float) -> str:
    return f"{count:,.4g} process{'es' * (count != 1)}"


def _images(estimate: Estimate) -> str:
    if math.isnan(estimate.samples):
        return "nothing tells how many: the source shards have no size"
    about = "" if estimate.is_counted else "about "
    rejected = estimate.samples - estimate.rows
    return f"{about}{estimate.samples:,.0f}" + (f", of which about {rejected:,.0f} rejected" if rejected >= 0.5 else "")


def _time(estimate: Estimate) -> str:
    if math.isnan(estimate.hours):
        return ""
    rate = f"({estimate.images_per_second:,.1f} images/s x {_processes(estimate.at_work)})"
    said = f"{_hours(estimate.hours)} = {estimate.samples:,.0f} images / {rate}"
    if estimate.at_work == estimate.processes:
        return said
    there = f"there are {estimate.source_shards:,}, each the work of one"
    return f"{said}; on average the others of {estimate.processes:,} find no source shard: {there}"


def _process_hours(estimate: Estimate) -> str:
    if math.isnan(estimate.hours):
        return ""
    return f"{estimate.process_hours:,.4g} = {estimate.hours:,.4g} h x {_processes(estimate.processes)}"


def _cost(estimate: Estimate) -> str:
    if estimate.cost is None or math.isnan(estimate.cost):
        return ""
    return f"{estimate.cost:,.2f} = {estimate.process_hours:,.4g} h x {estimate.price:g}"


def _store(estimate: Estimate) -> str:
    if math.isnan(estimate.samples):
        return f"{estimate.bytes_per_row:,.1f} bytes a row, {_size(estimate.bytes_per_part)} a part"
    spread = "" if estimate.spread is None else f" ± {100 * estimate.spread:.0f} %"
    rejects = f" + {_size(estimate.reject_bytes)} of rejects" if estimate.reject_bytes else ""
    return (
        f"{_size(estimate.store_bytes)}{spread} = {estimate.rows:,.0f} rows x {estimate.bytes_per_row:,.1f} bytes + "
        f"{estimate.source_shards:,} parts x {_size(estimate.bytes_per_part)} + {_size(estimate.measured.store_bytes)}"
        f"{rejects}"
    )


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{hours:,.0f} h ({hours / 24:,.1f} days)"
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"


def _size(size: float) -> str:
    for unit, length in (("TB", _TB), ("GB", _GB), ("MB", _MB), ("kB", _KB)):
        if size >= length:
            return f"{size / length:,.2f} {unit}"
    return f"{size:,.0f} bytes"
