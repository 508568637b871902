"""Checkpoints of the whole training state: weights, optimizer, schedule, gradient scaler, random states.

    checkpoints/step-000400/      complete, for it was renamed into place
    checkpoints/.tmp-…            left by a killed run; removed by the next

All processes share the folder. Accelerate loads the files with `weights_only`, which runs no pickled code.
Another number of processes may resume; only with the same number is the result the same.
"""

import shutil
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from pipeline.errors import TokenizerError
from pipeline.files import sync_folder, sync_tree

KEPT = 2
_PREFIX = "step-"


class Checkpoints:
    """The checkpoints of one training, the newest `KEPT` of them on disk."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._folder = folder
        self._accelerator = accelerator

    def resume(self) -> int:
        """Load the newest checkpoint into what the accelerator has prepared.

        Returns the number of steps done, 0 without a checkpoint. Raises TokenizerError for a checkpoint
        that cannot be loaded.
        """
        # One process looks, so that all of them agree.
        newest = [max(self._steps(), default=0)]
        broadcast_object_list(newest)
        if newest[0]:
            path = self._path(newest[0])
            try:
                self._accelerator.load_state(str(path))
            except Exception as error:  # unpickling damaged files raises almost anything
                raise TokenizerError(
                    f"{path}: the checkpoint cannot be loaded ({type(error).__name__}); "
                    "delete it to resume from the one before"
                ) from error
        return newest[0]

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`: it appears whole or not at all."""
        temporary = self._folder / f".tmp-{_PREFIX}{step:06d}"
        if self._accelerator.is_main_process:
            for leftover in self._folder.glob(".tmp-*"):
                shutil.rmtree(leftover)
            temporary.mkdir(parents=True)
        self._accelerator.wait_for_everyone()
        self._accelerator.save_state(str(temporary))
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            sync_tree(temporary)
            temporary.rename(self._path(step))
            sync_folder(self._folder)
            for old in sorted(self._steps())[:-KEPT]:
                self._discard(self._path(old))

    def _discard(self, checkpoint: Path) -> None:
        # Renamed first: a kill half-way must not leave half a checkpoint under a complete one's name.
        doomed = checkpoint.rename(checkpoint.with_name(f".tmp-{checkpoint.name}"))
        shutil.rmtree(doomed)

    def _steps(self) -> list[int]:
        return [int(path.name.removeprefix(_PREFIX)) for path in self._folder.glob(f"{_PREFIX}*")]

    def _path(self, step: int) -> Path:
        return self._folder / f"{_PREFIX}{step:06d}"
