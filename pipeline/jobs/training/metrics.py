"""`metrics.jsonl`: one JSON object per line, kept in step with the checkpoints."""

import json
import os
from pathlib import Path

from pipeline.files import LocalFiles
from pipeline.files.regular import read_regular
from pipeline.records import JSON

TRAIN, HELD_OUT = "train", "held-out"


class MetricsLog:
    """Appends to `metrics.jsonl` in a folder; lines of steps that will be repeated are dropped first.

    `latest` is the newest line of each kind, `kept` are the lines from before a resume, and `damaged` is the number of
    lines that could not be read: a killed run leaves half a line at the end, and a power cut whatever the file system
    makes of it.
    """

    def __init__(self, folder: Path, resumed_from: int) -> None:
        self._path = folder / "metrics.jsonl"
        lines = read_regular(self._path).splitlines() if self._path.exists() else []
        found = [_decode(line) for line in lines]
        self.kept = kept = [line for line in found if line is not None and line["step"] <= resumed_from]
        self.damaged = found.count(None)
        LocalFiles(folder).put(self._path.name, b"".join(_encode(line) for line in kept))
        self.latest: dict[str, JSON] = {line["kind"]: line for line in kept}

    def write(self, kind: str, step: int, values: JSON) -> None:
        """Append one line."""
        line = {"step": step, "kind": kind, **values}
        with self._path.open("ab") as file:
            file.write(_encode(line))
        self.latest[kind] = line

    def sync(self) -> None:
        """Make the lines durable: a checkpoint must not outlive the figures of its steps."""
        with self._path.open("ab") as file:
            os.fsync(file.fileno())


def _decode(line: bytes) -> JSON | None:
    """One line; None when it is damaged."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(values, dict) and isinstance(values.get("step"), int) and isinstance(values.get("kind"), str)
    return values if whole else None


def _encode(line: JSON) -> bytes:
    rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}
    return json.dumps(rounded).encode() + b"\n"
