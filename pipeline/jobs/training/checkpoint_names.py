"""Which checkpoints a tokenizer folder holds. Needs no torch."""

import re
from pathlib import Path


def checkpointed_steps(folder: Path) -> list[int]:
    """The steps of which the tokenizer folder has a checkpoint, ascending. A folder with another name is none."""
    found = [path for path in folder.glob("checkpoints/step-*") if path.is_dir()]
    steps = {int(path.name[5:]) for path in found if re.fullmatch(r"step-[0-9]+", path.name)}
    return sorted(step for step in steps if checkpoint_path(folder, step) in found)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or will be."""
    return folder / "checkpoints" / f"step-{step:06d}"
