"""When a training has gone wrong: a loss that is not finite or explodes, or an outcome worse than the mean image.

All processes judge the same reduced figures, so they end together. What is watched is made again from the lines of
`metrics.jsonl`, so a resumed training is judged like one that was never interrupted.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from tqdm import tqdm

from pipeline.config import TrainConfig
from pipeline.errors import TrainingDiverged
from pipeline.jobs.training.agreement import raise_once
from pipeline.jobs.training.checkpoint_names import checkpoint_path, checkpointed_steps
from pipeline.printing import shown
from pipeline.records import JSON

_SMOOTHED_STEPS = 20
_FAR_ABOVE = 10
_GREY_LOSS = 1.0
"""Mean squared value of normalised pixels, -1 to 1, at most: what a grey image scores, whatever it stands for."""
_HARMLESS = 0.1
"""A PSNR of 16 dB: below it a loss has not exploded, however small it was before."""


class LossWatch:
    """Tells from the reconstruction loss, smoothed over some 20 steps, when it has exploded.

    It is too high when it is above ten times its best and above where it began; exploded when it stays so for 20 steps
    and two lines of metrics. A single bad batch, however bad, does not end a training.

    The quantizer's own loss says nothing: it follows the scale of the encoder's vectors, and while nothing is wrong may
    grow a thousandfold in a few steps.
    """

    def __init__(self) -> None:
        self.best = _GREY_LOSS
        """The lowest smoothed loss; at first that of a grey image."""
        self.latest = math.nan
        """The newest loss, as it was observed."""
        self._start = _GREY_LOSS
        self._step = 0
        self._sum = self._weight = 0.0
        self._since = 0
        self._high_lines = 0
        self._latest_high = False

    @property
    def too_high(self) -> bool:
        """Whether the loss may be exploding."""
        return self._high_lines > 0

    @property
    def doubtful(self) -> bool:
        """Whether the loss may have begun to explode, or was high just once: no state that is worth a checkpoint."""
        return self.too_high or self._latest_high

    @property
    def exploded(self) -> bool:
        """Whether it has been too high for long enough."""
        return self._high_lines > 1 and self._step - self._since >= _SMOOTHED_STEPS

    def observe(self, step: int, loss: float) -> None:
        """Take the mean loss of the steps since the last call, up to `step`."""
        begins = self._step < _SMOOTHED_STEPS <= step
        limit = max(_FAR_ABOVE * self.best, self._start, _HARMLESS)
        # Capped, for one huge loss would otherwise stay in the smoothed one for long.
        smoothed = self._smoothed(step - self._step, min(loss, 2 * limit))
        self.latest, self._latest_high, self._step = loss, loss > limit, step
        if begins:
            self._start = min(self._start, smoothed)
        if smoothed > limit:
            self._high_lines += 1
        else:
            self._high_lines, self._since = 0, step
        if step >= _SMOOTHED_STEPS:
            self.best = min(self.best, smoothed)

    def _smoothed(self, steps: int, loss: float) -> float:
        kept = math.exp(-steps / _SMOOTHED_STEPS)
        self._sum = kept * self._sum + (1 - kept) * loss
        self._weight = kept * self._weight + (1 - kept)
        return self._sum / self._weight


class Verdict:
    """Ends a training that has gone wrong. All processes make and ask it together.

    Args:
        folder: the tokenizer folder.
        model: what is trained.
        lines: the lines of metrics from before a resume, on the main process.
        done: the step of the checkpoint that was resumed from, 0 without one.

    Where a method raises TrainingDiverged, the main process does, and the others raise SystemExit with its status. So
    does this, when the training had diverged before the checkpoint that it resumes from.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        model: nn.Module,
        train: TrainConfig,
        lines: Iterable[JSON],
        done: int,
    ) -> None:
        self._accelerator = accelerator
        self._folder = folder
        self._model = model
        self._train = train
        self._watch = LossWatch()
        seen = [[(line["step"], line["reconstruction_loss"]) for line in lines]]
        broadcast_object_list(seen)
        for step, loss in seen[0]:
            self._watch.observe(step, loss)
        if seen[0] and self._watch.too_high:
            resumed = checkpoint_path(folder, done)
            what = f"{self._loss_now(seen[0][-1][0])}, and {resumed} was saved all the same"
            self._raise(done, what, "delete it and ")

    def on_figures(self, step: int, values: JSON) -> None:
        """Judge a line of metrics. Raises TrainingDiverged for a loss that is not finite or has exploded."""
        if not math.isfinite(values["loss"]):
            self._raise(step, f"at step {step} the loss became {values['loss']}")
        # Rounded as in metrics.jsonl, from which a resumed training takes it.
        self._watch.observe(step, float(f"{values['reconstruction_loss']:.6g}"))
        if self._watch.exploded:
            self._raise(step, self._loss_now(step))

    def may_save(self, step: int) -> bool:
        """Whether a checkpoint of this step is worth going on from.

        Raises TrainingDiverged for weights that are not finite.
        """
        tensors = [value for value in self._model.state_dict().values() if value.is_floating_point()]
        finite = torch.stack([value.isfinite().all() for value in tensors]).all()
        if self._accelerator.reduce(finite.long(), "sum").item() < self._accelerator.num_processes:
            self._raise(step, f"at step {step} weights became infinite or NaN")
        if self._watch.doubtful and self._accelerator.is_main_process:
            tqdm.write(shown(f"no checkpoint of this state, for {self._loss_now(step)}"), file=sys.stderr)
        return not self._watch.doubtful

    def on_end(self, kind: str, psnr: float, mean_image_psnr: float | None) -> None:
        """Judge the outcome, in dB, of the images of one `kind`; None for images that have no mean worth the name.

        Raises TrainingDiverged when the loss is too high at the end, and when the mean image does better.
        """
        if self._watch.too_high:
            self._raise(self._train.steps, self._loss_now(self._train.steps))
        if mean_image_psnr is not None and psnr < mean_image_psnr:
            self._raise(
                self._train.steps,
                f"after {self._train.steps} steps the reconstructions of {kind} images, with a PSNR of {psnr:.2f} dB, "
                f"are worse than their mean image, with {mean_image_psnr:.2f} dB",
                "train for more steps (train.steps) if the loss was still falling, else ",
            )

    def _loss_now(self, step: int) -> str:
        watch = self._watch
        return f"at step {step} the reconstruction loss was {watch.latest:.3g}, {_best(watch.best)}"

    def _raise(self, step: int, what: str, remedy: str = "") -> NoReturn:
        """End all processes, with what went wrong up to `step`."""
        train = self._train
        kept = [saved for saved in checkpointed_steps(self._folder) if saved < step]
        remedy += (
            f"lower train.learning_rate ({train.learning_rate:g}) or raise train.warmup_steps ({train.warmup_steps})"
        )
        if train.precision == "fp16":
            remedy += ", or set train.precision to bf16 or fp32"
        before = "there is no checkpoint before it"
        if kept:
            before = f"the checkpoint before it is {checkpoint_path(self._folder, kept[-1])}"
        message = f"{self._folder}: training went wrong, and no tokenizer was saved: {what}; {remedy}; {before}"
        raise_once(TrainingDiverged(message), self._accelerator.is_main_process)


def _best(best: float) -> str:
    return f"its best {best:.3g}" if best < _GREY_LOSS else f"where a grey image has at most {_GREY_LOSS:g}"
