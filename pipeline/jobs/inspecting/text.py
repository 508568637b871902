"""What `vqtok inspect` prints for people."""

from collections import Counter
from collections.abc import Sequence

from pipeline.jobs.inspecting.job import Inspection
from pipeline.printing import one_line, printable
from pipeline.redaction import redacted_place

_MOST = 6


def as_text(found: Inspection) -> str:
    """A line for each thing, names to the left."""
    rows = [
        ("container", f"{found.kind}; {redacted_place(found.source.shards[0])}"),
        ("source shards", f"{len(found.shards):,}, {found.bytes / 1e6:,.1f} MB"),
        ("samples", _samples(found)),
        ("columns", ", ".join(f"{name} ({kind})" for name, kind in found.columns().items())),
        ("members", "" if found.columns() else _shares(found.tally.members, found.tally.samples, ".")),
        ("formats", _shares(found.tally.formats, found.tally.rows)),
        ("sizes", _sizes(found)),
        (
            "shorter side",
            ", ".join(f"{sides} px {_share(count, found.tally.rows)}" for sides, count in found.histogram()),
        ),
        ("labels", _labels(found)),
        ("captions", repr(found.tally.caption) if found.tally.caption else ""),
        ("needs", ", ".join(name for name in ("nested", "regroup") if getattr(found.source, name))),
        ("rejects", _rejects(found)),
        ("rows", "unknown" if found.rows is None else about(found.rows, found.complete)),
    ]
    lines = [f"{name:14} {printable(text)}" for name, text in rows if text]
    lines += [f"  {count:>6,}  {one_line(reason)}" for reason, count in found.tally.rejects.most_common(_MOST)]
    if (more := len(found.tally.rejects) - _MOST) > 0:
        lines.append(f"          and {more:,} more reasons (--json)")
    lines += [f"cannot be read: {one_line(problem)}" for problem in found.problems]
    return "\n".join([*lines, *(f"also there: {one_line(remark)}" for remark in found.remarks)])


def _samples(found: Inspection) -> str:
    if found.samples is None:
        return "unknown"
    if found.complete:
        return f"{found.samples:,}"
    looked = f"{found.tally.samples:,} in {len(found.looks):,} source shards were looked at"
    return f"{about(found.samples, found.is_counted)}; {looked}"


def about(count: int, exact: bool) -> str:
    """A number for people; of an estimate three digits."""
    return f"{count:,}" if exact else f"about {float(f'{count:.3g}'):,.0f}"


def _share(count: int, total: int) -> str:
    percent = 100 * count / max(1, total)
    return f"{percent:.0f}%" if percent >= 1 else f"{percent:.2g}%"


def _shares(counts: Counter[str], total: int, before: str = "") -> str:
    named = [f"{before}{name} {_share(count, total)}" for name, count in counts.most_common(_MOST)]
    return ", ".join([*named, *(["..."] if len(counts) > _MOST else [])])


def _sizes(found: Inspection) -> str:
    sides = found.short_sides()
    if not sides:
        return ""
    sizes = found.tally.sizes
    if len(sizes) == 1:
        ((height, width),) = sizes
        return f"all {height}x{width}"
    largest = max(sizes, key=lambda size: size[0] * size[1])
    return (
        f"shorter side {sides[0]} to {sides[-1]} px, median {sides[len(sides) // 2]}; largest {largest[0]}x{largest[1]}"
    )


def _labels(found: Inspection) -> str:
    tally, names = found.tally, found.class_names()
    if tally.classes:
        where = found.label_column() or ".cls"
        known = f", named {_some(names)}" if names else ""
        values = f"{min(tally.classes)} to {max(tally.classes)}, {len(tally.classes):,} different"
        return f"{where}: {_share(tally.classes.total(), tally.samples)}, {values}{known}"
    if folders := found.folders():
        splits = ", which are splits, each with what is in it; look at one of them alone" if found.are_splits() else ""
        return f"{len(folders):,} {'folder' if len(folders) == 1 else 'folders'}: {_some(folders)}{splits}"
    if tally.json_integers:
        return f"none in .cls; integers in .json: {_shares(tally.json_integers, tally.samples)}"
    return "none"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST]) + (", ..." if len(names) > _MOST else "")


def _rejects(found: Inspection) -> str:
    rejects = found.tally.rejects.total()
    return f"{rejects:,} of {found.tally.samples:,} looked at" if found.tally.samples else ""
