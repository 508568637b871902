"""The comparison: under each condition all loaders are open, and take turns."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from loaders.cell import Condition, Counted
from loaders.child import Child, Failed, Place, end_all
from loaders.peer import Cannot, Pattern
from loaders.rows import write_rows

NOT_INSTALLED = "not installed (pip install vqtok[bench])"


@dataclass(frozen=True)
class Entry:
    """A loader of the comparison."""

    title: str
    peer: str
    """`module:Class`."""
    needs: str = ""
    """A module that may not be installed."""
    share: int = 1
    """A slow loader gets the first 1/share of the rows."""
    files: str = ""
    """Entries of one name read the same files."""


@dataclass(frozen=True)
class Result:
    """What one loader did under one condition."""

    rate: float | None = None
    """Rows a second, the median of the rounds; None with a reason."""
    reason: str = ""
    counted: Counted = field(default_factory=Counted)
    failed: bool = False
    """Rows were lost, or the loader broke: no benchmark ends well with that."""


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    entries: dict[str, Entry]
    rows: int
    tokens: Sequence[int]
    workers: Sequence[int]
    rounds: int
    seconds: float
    """A round of one loader takes this long, or one epoch."""

    def rows_of(self, name: str) -> int:
        """How many rows a loader gets."""
        return max(self.rows // self.entries[name].share, min(self.rows, 512))

    @property
    def conditions(self) -> list[Condition]:
        """In the order of the run."""
        return [Condition(*each) for each in product(self.tokens, Pattern, self.workers)]


Results = dict[tuple[str, Condition], Result]


def measure(plan: Plan, folder: Path, say: Callable[[str], None]) -> Results:
    """Write the rows for all loaders, and let them take turns under every condition."""
    results: Results = {}
    present = {name: entry for name, entry in plan.entries.items() if not entry.needs or find_spec(entry.needs)}
    for name, condition in product(plan.entries.keys() - present.keys(), plan.conditions):
        results[name, condition] = Result(reason=NOT_INSTALLED)
    children = {name: Child(entry.peer) for name, entry in present.items()}
    try:
        for tokens in plan.tokens:
            places, broken = _write(plan, children, tokens, folder, say)
            ready = {name: child for name, child in children.items() if name in places}
            for condition in [condition for condition in plan.conditions if condition.tokens == tokens]:
                say(f"{tokens} tokens, {condition.pattern}, {condition.workers} workers")
                taken = _take_turns(plan, ready, places, condition) | broken
                results.update({(name, condition): result for name, result in taken.items()})
    finally:
        end_all(list(children.values()))
    return results


def _write(
    plan: Plan, children: dict[str, Child], tokens: int, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Place], dict[str, Result]]:
    """Where each loader has stored its rows, and which could not."""
    places, broken = {}, {}
    for name, child in children.items():
        count = plan.rows_of(name)
        source = folder / f"rows-{count}-{tokens}.npy"
        if not source.exists():
            write_rows(source, count, tokens)
        place = Place(source, folder / f"{plan.entries[name].files or name}-{tokens}")
        say(f"writing {count:,} rows of {tokens} tokens for {plan.entries[name].title}")
        try:
            child.write(place)
            places[name] = place
        except Failed as reason:
            broken[name] = Result(reason=str(reason), failed=True)
    return places, broken


def _take_turns(
    plan: Plan, children: dict[str, Child], places: dict[str, Place], condition: Condition
) -> dict[str, Result]:
    results: dict[str, Result] = {}
    rates: dict[str, list[float]] = {}
    for name, child in children.items():
        try:
            counted = child.open(places[name], condition)
            results[name] = Result(reason=counted.problem, counted=counted, failed=bool(counted.problem))
        except (Cannot, Failed) as reason:
            results[name] = Result(reason=str(reason), failed=isinstance(reason, Failed))
        if not results[name].reason:
            rates[name] = []
    for number in range(plan.rounds):
        for name in list(rates)[:: -1 if number % 2 else 1]:
            try:
                rates[name].append(children[name].time(plan.seconds))
            except Failed as reason:
                results[name] = Result(reason=str(reason), failed=True)
                del rates[name]
    for name, measured in rates.items():
        with suppress(Failed):  # it has delivered; the next condition starts it again
            children[name].close_cell()
        results[name] = Result(statistics.median(measured), counted=results[name].counted)
    return results
