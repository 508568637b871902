"""`metrics.jsonl`: one JSON object per line, kept in step with the checkpoints."""

import json
from pathlib import Path

from pipeline.files import LocalFiles
from pipeline.records import JSON

TRAIN, HELD_OUT = "train", "held-out"


class MetricsLog:
    """Appends to `metrics.jsonl` in a folder; lines of steps that will be repeated are dropped first.

    `latest` is the newest line of each kind.
    """

    def __init__(self, folder: Path, resumed_from: int) -> None:
        self._path = folder / "metrics.jsonl"
        kept = [line for line in self._read() if line["step"] <= resumed_from]
        LocalFiles(folder).put(self._path.name, b"".join(_encode(line) for line in kept))
        self.latest: dict[str, JSON] = {line["kind"]: line for line in kept}

    def write(self, kind: str, step: int, values: JSON) -> None:
        """Append one line."""
        line = {"step": step, "kind": kind, **values}
        with self._path.open("ab") as file:
            file.write(_encode(line))
        self.latest[kind] = line

    def _read(self) -> list[JSON]:
        """The whole lines there are: a killed run may have left half a line at the end."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _encode(line: JSON) -> bytes:
    rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}
    return json.dumps(rounded).encode() + b"\n"
