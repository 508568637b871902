"""Results as tables that read well on a terminal and are Markdown."""

import os
import platform
import re
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

from loaders.cell import Condition
from loaders.opening import MOST_SECONDS
from loaders.order import BLOCK
from loaders.peer import Pattern
from loaders.rounds import Plan, Result, Results

REFERENCE = "memmap"
OURS = ("vqtok-raw", "vqtok-lz4")
VERSIONS = ("numpy", "torch", "zarr", "litdata", "mosaicml-streaming", "webdataset")
Columns = dict[str, Condition]
START, END = "<!-- loader -->", "<!-- /loader -->"


def report(plan: Plan, results: Results, opening: tuple[int, float] | None, command: str) -> str:
    """The whole section, `## Loader`."""
    parts = ["## Loader", HOW.format(command=command, machine=machine(), seconds=plan.seconds, rounds=plan.rounds)]
    for tokens, workers in product(plan.tokens, plan.workers):
        columns = {str(pattern): Condition(tokens, pattern, workers) for pattern in Pattern}
        parts += [f"### {tokens} tokens a row, {workers or 'no'} workers", _rates(plan, results, columns)]
        parts += [_factors(plan, results, columns, ours) for ours in OURS if ours in plan.entries]
    parts += ["### What is delivered", _deliveries(plan, results)]
    if opening:
        count, seconds = opening
        verdict = "within" if seconds <= MOST_SECONDS else "NOT within"
        parts.append(f"`TokenStore(path)` of {count:,} parts: {seconds:.2f} s, {verdict} {MOST_SECONDS:g} s.")
    return "\n\n".join(part for part in parts if part) + "\n"


HOW = """`{command}`, on {machine}

Rows a second, and how that compares to the memory map (1 = as fast). All loaders store the same rows of uint16 tokens,
and slow ones the first of them. Every loader runs in a process of its own; under each condition all are open and take
turns, forwards and backwards, {seconds:g} s or one epoch at a time, and the figure is the median of {rounds} turns. A
first pass that is not timed starts the workers, warms the page cache and counts: every row of an epoch was delivered
exactly once and as it was written, every random request met. Batches are of 256 rows in memory of their own, of which
one token in every row and page is read. Loaders without workers may use threads."""


def write_section(file: Path, section: str) -> None:
    """Put the section between its marks in a Markdown file, and leave the rest as it is."""
    text = file.read_text() if file.exists() else "# Benchmarks\n"
    marked = f"{START}\n{section}{END}"
    if START in text and END in text:
        text = re.sub(f"{START}.*{END}", lambda _: marked, text, count=1, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n{marked}\n"
    file.write_text(text)


def machine() -> str:
    """Processor, memory and versions."""
    installed = []
    for name in VERSIONS:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {memory:.0f} GiB, Python {platform.python_version()}, "
        f"{', '.join(installed)}."
    )


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1).strip() if found else platform.machine()


def _rates(plan: Plan, results: Results, columns: Columns) -> str:
    lines = [["loader", "rows", *columns]]
    for name, entry in plan.entries.items():
        found = {title: results[name, condition] for title, condition in columns.items()}
        references = [results.get((REFERENCE, condition)) for condition in columns.values()]
        cells = [_rate(result, reference) for result, reference in zip(found.values(), references, strict=True)]
        lines.append([entry.title, f"{plan.rows_of(name):,}", *cells])
    return _table(lines)


def _rate(result: Result, reference: Result | None) -> str:
    if result.rate is None:
        return f"**{result.reason}**" if result.failed else result.reason
    ratio = f" ({_times(result.rate / reference.rate)})" if reference and reference.rate else ""
    return f"{_three_digits(result.rate)}{ratio}"


def _factors(plan: Plan, results: Results, columns: Columns, ours: str) -> str:
    lines = [[f"{plan.entries[ours].title}, to", *columns]]
    for name, entry in plan.entries.items():
        if name.startswith("vqtok"):
            continue
        pairs = [(results[ours, condition].rate, results[name, condition].rate) for condition in columns.values()]
        lines.append([entry.title, *(_times(our / their) if our and their else "–" for our, their in pairs)])
    return _table(lines) if len(lines) > 1 else ""


def _deliveries(plan: Plan, results: Results) -> str:
    lines = [["loader", "batches are", "blocks of 1,024 rows met in a shuffled batch"]]
    for name, entry in plan.entries.items():
        counted = [(condition, results[name, condition].counted) for condition in plan.conditions]
        kinds = sorted({each.delivers for _, each in counted if each.delivers})
        mixed = [each.blocks for condition, each in counted if condition.pattern is Pattern.SHUFFLED and each.blocks]
        spread = f"{min(mixed):.0f} to {max(mixed):.0f} of {-(-plan.rows_of(name) // BLOCK):,}" if mixed else "–"
        lines.append([entry.title, ", ".join(kinds) or "–", spread])
    return _table(lines)


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:#.3g}×" if ratio >= 1 else f"{ratio:.2g}×"


def _three_digits(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.0f}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the heading; all but the first column stand to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    align: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [put(cell, width) for put, cell, width in zip(align, line, widths, strict=True)]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
