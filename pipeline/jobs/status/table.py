"""The state of a job as a table for people."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from pipeline.jobs.missing import without
from pipeline.jobs.rejects import RejectReason
from pipeline.jobs.status.job import Running, Status
from pipeline.jobs.terminal import aligned
from pipeline.printing import one_line

_BAR_CELLS = 30
# Rows of one section; --json has them all.
_ROWS = 10
_ROWS_RUNNING = 64


def status_table(status: Status) -> str:
    """Every section that has anything to say, lines as long as they need to be."""
    return "\n".join(
        [
            *_header(status),
            *_section(
                ["running", "since", "for", "images", "host", "process", "heartbeat"],
                map(_running, status.running),
                _ROWS_RUNNING,
            ),
            *_section(["failed", "at", "reason"], ([f.source, _moment(f.time), f.reason] for f in status.failed)),
            *_section(["rejected", "stage", "reason", "one of them"], map(_rejected, status.rejects)),
            *_section(["not what this configuration makes"], ([text] for text in status.differs)),
            *_section(["damaged; vqtok verify tells more"], ([text] for text in status.damaged)),
            *_section(["committed, but not of this configuration"], ([part] for part in status.unplanned)),
        ]
    )


def status_line(status: Status) -> str:
    """The most of it on one line, for a log."""
    return ", ".join(_header(status)[1:])


def _header(status: Status) -> list[str]:
    done = status.fraction_done
    cells = int(done * _BAR_CELLS)
    lines = [
        status.store,
        # Rounded down: 100% is for what is done.
        f"[{'#' * cells}{'.' * (_BAR_CELLS - cells)}] {int(1000 * done) / 10:.1f}% of {_size(status.planned_bytes)}",
        f"{status.done:,} of {status.planned:,} source shards are committed",
        f"{status.written:,} samples written, {status.rejected:,} rejected",
    ]
    if lacking := without(status.unlabelled, status.missing):
        lines.append(lacking)
    rates = [
        f"{rate:,.0f} images/s {span}"
        for rate, span in (
            (None if status.complete else status.recent_images_per_second, "in the last 10 min"),
            (status.images_per_second, "on average while at work"),
        )
        if rate is not None
    ]
    if rates:
        lines.append(", ".join(rates))
    if status.bounds:
        lines.append(str(status.bounds))
    if status.differs:
        lines.append("the store holds other tokens than this configuration makes: vqtok tokenize would refuse it")
    elif status.complete:
        lines.append("complete")
    elif not status.pending and status.damaged:
        lines.append("all is committed, and some of it is damaged")
    elif not status.pending:
        lines.append("all is committed, but the manifest is not up to date: run vqtok tokenize again")
    elif status.starting and not status.running:
        lines.append(f"starting up: {status.starting} process{'es' if status.starting > 1 else ''}, loading PyTorch")
    elif not status.running and not status.exists:
        lines.append("no store yet: run vqtok tokenize; a job that was just started makes it once PyTorch is loaded")
    elif not status.running:
        lines += _last_words(status)
        lines.append(f"nobody is at work{_to_go(status.eta_seconds)}: run vqtok tokenize")
    elif status.eta_seconds is not None:
        ready = datetime.now() + timedelta(seconds=min(status.eta_seconds, 1e9))
        lines.append(f"ready in about {duration(status.eta_seconds)}, {_moment(ready.isoformat())}")
    return lines


def _last_words(status: Status) -> list[str]:
    """Why the job ended, if it said so."""
    ended = status.gave_up
    return [f"gave up at {_moment(ended.time)} on {one_line(ended.host)}: {one_line(ended.reason)}"] if ended else []


def _to_go(eta_seconds: float | None) -> str:
    return "" if eta_seconds is None else f", about {duration(eta_seconds)} to go"


def _running(claim: Running) -> list[str]:
    return [
        claim.source,
        _moment(claim.since),
        "" if claim.seconds is None else duration(claim.seconds),
        f"{claim.images:,}",
        claim.host,
        str(claim.pid),
        _heartbeat(claim),
    ]


def _heartbeat(claim: Running) -> str:
    if claim.heartbeat_seconds is None:
        return ""
    return f"{duration(claim.heartbeat_seconds)} ago{', stale' if claim.stale else ''}"


def _rejected(reason: RejectReason) -> list[str]:
    return [f"{reason.samples:,}", reason.stage, reason.reason, f"{reason.key} in {reason.source}"]


def _section(headings: list[str], rows: Iterable[list[str]], limit: int = _ROWS) -> list[str]:
    """A blank line, and rows below their headings; nothing at all without rows."""
    rows = [[one_line(text) for text in row] for row in rows]
    more = [f"… and {len(rows) - limit:,} more; --json has them all"] if len(rows) > limit else []
    return ["", *aligned([headings, *rows[:limit]]), *more] if rows else []


def _moment(time: str) -> str:
    """ISO 8601 in any time zone as the time of day in ours, with the date where that is not today's."""
    try:
        local = datetime.fromisoformat(time).astimezone()
    except (ValueError, OverflowError):
        return time
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().date() else f"{local:%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """The two largest units of a span of time."""
    whole = int(seconds)
    for unit, below, length, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= length:
            return f"{whole // length:,} {unit} {whole % length // part} {below}"
    return f"{whole} s"


def _size(size: int) -> str:
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:,.1f} {unit}"
    return f"{size} bytes"
