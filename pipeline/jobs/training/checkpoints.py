"""Checkpoints of the whole training state: weights, optimizer, schedule, gradient scaler, random states.

    checkpoints/step-000400/      complete, for it was renamed into place
      contents.json               sizes and digests of the other files, written last
    checkpoints/.tmp-…            left by a killed run; removed by the next

All processes share the folder. Accelerate loads the files with `weights_only`, which runs no pickled code.
Another number of processes may resume; only with the same number is the result the same.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from pipeline.errors import TokenizerError
from pipeline.files import sync_folder, sync_tree
from pipeline.jobs.training.agreement import raise_once
from pipeline.jobs.training.checkpoint_files import damage, is_recorded, write_contents
from pipeline.jobs.training.checkpoint_names import checkpoint_path, checkpointed_steps
from pipeline.jobs.training.disk import free_bytes, in_words, room, used_bytes
from pipeline.jobs.training.random_states import damaged_random_states, of_any_numpy
from pipeline.printing import say

KEPT = 2


class Checkpoints:
    """The checkpoints of one training, the newest `KEPT` of them on disk.

    Args:
        folder: the tokenizer folder.
        size: bytes that a checkpoint will take, about.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, size: Callable[[], int]) -> None:
        self._tokenizer_folder = folder
        self._folder = folder / "checkpoints"
        self._accelerator = accelerator
        self._size = size
        self._damaged: dict[int, str] = {}
        """Why each of the damaged checkpoints is damaged, by step."""

    def resume(self) -> int:
        """Load the newest whole checkpoint into what the accelerator has prepared.

        Returns the number of steps done, 0 without a checkpoint. Raises TokenizerError when none is whole, and for
        one that cannot be loaded; on other processes than the main one SystemExit.
        """
        while True:
            # One process looks, so that all of them agree.
            found: list[int | str] = [0]
            if self._accelerator.is_main_process:
                found = [self._newest_whole()]
            broadcast_object_list(found)
            step = found[0]
            if isinstance(step, str):
                raise_once(TokenizerError(step), self._accelerator.is_main_process)
            if step == 0 or self._load(step):
                break
        if self._accelerator.is_main_process:
            for damaged, reason in self._damaged.items():
                path = self._path(damaged)
                say(f"{path}: damaged ({reason}); goes on from step {step}", error=True)
        return step

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`: it appears whole or not at all.

        When one of the processes cannot write its part, on a full disk say, all of them end: the main one raises
        TokenizerError, the others SystemExit.
        """
        temporary = self._folder / f".tmp-step-{step:06d}"
        self._together(step, lambda: self._make(temporary))
        self._together(step, lambda: self._accelerator.save_state(str(temporary)))
        self._together(step, lambda: self._publish(temporary, step))

    def _newest_whole(self) -> int | str:
        """The step of the newest checkpoint that is not damaged, 0 without any, or why there is none."""
        steps = checkpointed_steps(self._tokenizer_folder)
        for step in sorted(set(steps) - self._damaged.keys(), reverse=True):
            reason = damage(self._path(step)) or damaged_random_states(self._path(step))
            if reason is None:
                break
            self._damaged[step] = reason
        whole = max(set(steps) - self._damaged.keys(), default=0)
        if steps and not whole:
            first, reason = next(iter(self._damaged.items()))
            return (
                f"{self._path(first)}: damaged ({reason}), and so is every other checkpoint; put one back from a copy, "
                "or delete the folder to train from the start"
            )
        return whole

    def _load(self, step: int) -> bool:
        """Load a checkpoint. False, on all processes, for one that has no record to tell damage by, and is damaged.

        Raises TokenizerError when it cannot be loaded, and nothing says that it is damaged or there is none before it.
        """
        path, reason = self._path(step), None
        try:
            with of_any_numpy():
                self._accelerator.load_state(str(path))
        except Exception as error:  # unpickling damaged files raises almost anything
            first = (str(error).strip().splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {first}"
        reasons = [found for found in gather_object([reason]) if found is not None]
        if not reasons:
            return True
        goes_back = [not is_recorded(path) and min(checkpointed_steps(self._tokenizer_folder)) < step]
        broadcast_object_list(goes_back)
        if not goes_back[0]:
            message = (
                f"{path}: the checkpoint cannot be loaded ({reasons[0]}); if it is not one of another model "
                "(train.model), delete it to resume from the one before"
            )
            raise_once(TokenizerError(message), self._accelerator.is_main_process)
        self._damaged[step] = reasons[0]
        return False

    def _together(self, step: int, act: Callable[[], object]) -> None:
        """Have all processes do their part; when one fails, all of them do."""
        reason = None
        try:
            act()
        except Exception as error:  # torch and safetensors have errors of their own for a full disk
            reason = in_words(error)
        reasons = [found for found in gather_object([reason]) if found is not None]
        if not reasons:
            return
        if not self._accelerator.is_main_process:
            raise SystemExit(TokenizerError.exit_status)  # one of them says why
        self._remove_leftovers()
        raise TokenizerError(self._refusal(step, reasons[0]))

    def _refusal(self, step: int, reason: str) -> str:
        whole = [done for done in checkpointed_steps(self._tokenizer_folder) if done not in self._damaged]
        kept = f"goes on from the checkpoint of step {whole[-1]}" if whole else "begins again"
        needed = max(self._size(), used_bytes(self._path(whole[-1])) if whole else 0)
        if free_bytes(self._folder) < needed:  # torch does not say why it could not write
            reason = f"no space is left ({reason})"
        return (
            f"{self._path(step)}: the checkpoint cannot be written: {reason}; "
            f"{room(self._folder, needed)}; make room, then the same command {kept}"
        )

    def _make(self, temporary: Path) -> None:
        if self._accelerator.is_main_process:
            self._remove_leftovers()
            temporary.mkdir(parents=True)

    def _publish(self, temporary: Path, step: int) -> None:
        if not self._accelerator.is_main_process:
            return
        write_contents(temporary)
        sync_tree(temporary)
        if self._path(step).exists():  # damaged, or of a training with other steps before
            self._discard(step)
        temporary.rename(self._path(step))
        sync_folder(self._folder)
        self._damaged.pop(step, None)
        steps = checkpointed_steps(self._tokenizer_folder)
        whole = [done for done in steps if done not in self._damaged]
        for old in set(steps) - set(whole[-KEPT:]):
            self._discard(old)

    def _remove_leftovers(self) -> None:
        for leftover in self._folder.glob(".tmp-step-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _discard(self, step: int) -> None:
        # Renamed first: a kill half-way must not leave half a checkpoint under a complete one's name.
        checkpoint = self._path(step)
        if checkpoint.exists():
            shutil.rmtree(checkpoint.rename(checkpoint.with_name(f".tmp-{checkpoint.name}-old")))

    def _path(self, step: int) -> Path:
        return checkpoint_path(self._tokenizer_folder, step)
