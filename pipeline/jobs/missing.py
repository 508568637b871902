"""What the configuration asks for and rows do not have, for people."""

from collections.abc import Iterable, Mapping

from pipeline.printing import printable


def without(unlabelled: int, missing: Mapping[str, int]) -> str | None:
    """How many rows lack what; None where nothing is missing."""
    lacks = {"a label": unlabelled} | {f".{printable(name)}": missing[name] for name in sorted(missing)}
    told = [f"{count:,} without {what}" for what, count in lacks.items() if count]
    return f"rows: {', '.join(told)}" if told else None


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts by name, sorted by name."""
    total: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))
