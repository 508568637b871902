"""Results as tables that read well on a terminal and are Markdown."""

from itertools import product

from pages import machine, table, three_digits, times

from loaders.cell import Condition
from loaders.opening import MOST_SECONDS
from loaders.order import BLOCK
from loaders.peer import Pattern
from loaders.rounds import Plan, Result, Results

REFERENCE = "memmap"
OURS = ("vqtok-raw", "vqtok-lz4")
VERSIONS = ("numpy", "torch", "zarr", "litdata", "mosaicml-streaming", "webdataset")
Columns = dict[str, Condition]


def report(plan: Plan, results: Results, opening: tuple[int, float] | None, command: str) -> str:
    """The whole section, `## Loader`."""
    parts = [
        "## Loader",
        HOW.format(command=command, machine=machine(VERSIONS), seconds=plan.seconds, rounds=plan.rounds),
    ]
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


HOW = """`{command}`, on {machine}.

Rows a second, and how that compares to the memory map (1 = as fast). All loaders store the same rows of uint16 tokens,
and slow ones the first of them. Every loader runs in a process of its own; under each condition all are open and take
turns, forwards and backwards, {seconds:g} s or one epoch at a time, and the figure is the median of {rounds} turns. A
first pass that is not timed starts the workers, warms the page cache and counts: every row of an epoch was delivered
exactly once and as it was written, every random request met. Batches are of 256 rows in memory of their own, of which
one token in every row and page is read. Loaders without workers may use threads."""


def _rates(plan: Plan, results: Results, columns: Columns) -> str:
    lines = [["loader", "rows", *columns]]
    for name, entry in plan.entries.items():
        found = {title: results[name, condition] for title, condition in columns.items()}
        references = [results.get((REFERENCE, condition)) for condition in columns.values()]
        cells = [_rate(result, reference) for result, reference in zip(found.values(), references, strict=True)]
        lines.append([entry.title, f"{plan.rows_of(name):,}", *cells])
    return table(lines)


def _rate(result: Result, reference: Result | None) -> str:
    if result.rate is None:
        return f"**{result.reason}**" if result.failed else result.reason
    ratio = f" ({times(result.rate / reference.rate)})" if reference and reference.rate else ""
    return f"{three_digits(result.rate)}{ratio}"


def _factors(plan: Plan, results: Results, columns: Columns, ours: str) -> str:
    lines = [[f"{plan.entries[ours].title}, to", *columns]]
    for name, entry in plan.entries.items():
        if name.startswith("vqtok"):
            continue
        pairs = [(results[ours, condition].rate, results[name, condition].rate) for condition in columns.values()]
        lines.append([entry.title, *(times(our / their) if our and their else "–" for our, their in pairs)])
    return table(lines) if len(lines) > 1 else ""


def _deliveries(plan: Plan, results: Results) -> str:
    lines = [["loader", "batches are", "blocks of 1,024 rows met in a shuffled batch"]]
    for name, entry in plan.entries.items():
        counted = [(condition, results[name, condition].counted) for condition in plan.conditions]
        kinds = sorted({each.delivers for _, each in counted if each.delivers})
        mixed = [each.blocks for condition, each in counted if condition.pattern is Pattern.SHUFFLED and each.blocks]
        spread = f"{min(mixed):.0f} to {max(mixed):.0f} of {-(-plan.rows_of(name) // BLOCK):,}" if mixed else "–"
        lines.append([entry.title, ", ".join(kinds) or "–", spread])
    return table(lines)
