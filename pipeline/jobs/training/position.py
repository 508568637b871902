"""How far training has come in the order of its samples: kept in every checkpoint.

The number of steps does not tell: another number of processes, which may resume, draws another number of samples in
each step.
"""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pipeline.files.regular import read_regular

_FILE = "position.json"


class Position:
    """The samples that all processes together have drawn.

    Args:
        per_step: samples of one step of all processes.
    """

    def __init__(self, accelerator: Accelerator, per_step: int) -> None:
        self.samples = 0
        self.per_step = per_step
        self._accelerator = accelerator
        self._found: int | None = None
        accelerator.register_save_state_pre_hook(self._save)
        accelerator.register_load_state_pre_hook(self._load)

    def begin(self, done: int) -> None:
        """Go on where the checkpoint of step `done` says, or from the start."""
        # Checkpoints of versions before this one do not say.
        self.samples = done * self.per_step if self._found is None else self._found

    def advance(self) -> None:
        """One more step is done."""
        self.samples += self.per_step

    def _save(self, models: Any, weights: Any, folder: str) -> None:
        if self._accelerator.is_main_process:
            Path(folder, _FILE).write_text(json.dumps({"samples": self.samples}) + "\n")

    def _load(self, models: Any, folder: str) -> None:
        file = Path(folder, _FILE)
        self._found = int(json.loads(read_regular(file))["samples"]) if file.exists() else None
