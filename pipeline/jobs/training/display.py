"""What a training run shows while it runs: progress bar, metrics.jsonl, TensorBoard, pictures."""

import math
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from pipeline.config import TrainConfig
from pipeline.files import LocalFiles
from pipeline.jobs.training.evaluation import Evaluation
from pipeline.jobs.training.metrics import HELD_OUT, TRAIN, MetricsLog
from pipeline.printing import shown
from pipeline.records import JSON


class Display:
    """Shows and writes on the main process; does nothing on the others."""

    def __init__(self, accelerator: Accelerator, folder: Path, train: TrainConfig, resumed_from: int) -> None:
        self._accelerator = accelerator
        self._files = LocalFiles(folder)
        self._log = MetricsLog(folder, resumed_from) if accelerator.is_main_process else None
        self._bar: Any = tqdm(
            desc="train",
            total=train.steps,
            initial=resumed_from,
            unit="step",
            disable=not accelerator.is_main_process,
            # In a log file, where each state of the bar is a new line, now and then is often enough.
            mininterval=0.2 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
        )
        if self._log is not None and self._log.damaged:
            self.say(f"metrics.jsonl: cut off {self._log.damaged} damaged lines, as a kill or a power cut leaves them")
        if resumed_from:
            self.say(f"resumed from the checkpoint of step {resumed_from}")
        # Steps after the checkpoint are done again, so TensorBoard must drop what a killed run logged of them.
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": resumed_from + 1}})

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()

    def train(self, step: int, values: JSON) -> None:
        """A line of metrics about the training images; none for a loss that is no number JSON has."""
        if not math.isfinite(values["loss"]):
            return
        self._write(TRAIN, step, values)
        self._bar.set_postfix_str(
            f"loss {values['loss']:.4f}, PSNR {values['psnr']:.2f} dB, perplexity {values['perplexity']:.0f}",
            refresh=False,
        )

    def held_out(self, step: int, evaluation: Evaluation) -> None:
        """Figures and a picture of the held-out images."""
        self._write(HELD_OUT, step, evaluation.values)
        if self._log is not None:
            self._files.put(f"reconstructions/step-{step:06d}.png", evaluation.png)
            self._files.put("reconstructions.png", evaluation.png)
        tally = evaluation.tally
        self.say(
            f"step {step}: held-out PSNR {tally.psnr:.2f} dB, {tally.codes_used} of {tally.vocab_size} codes"
            f" used, perplexity {tally.perplexity:.0f}"
        )

    def latest_held_out(self) -> JSON:
        """The newest held-out figures, from before a resume too; empty without any, and off the main process."""
        return self._log.latest.get(HELD_OUT, {}) if self._log is not None else {}

    def sync(self) -> None:
        """Make what was logged durable."""
        if self._log is not None:
            self._log.sync()

    def say(self, line: str) -> None:
        """Show a line above the progress bar."""
        if self._log is not None:
            self._bar.write(shown(line), file=sys.stderr)

    def earlier_figures(self) -> list[JSON]:
        """The lines about training images from before a resume; none off the main process."""
        return [line for line in self._log.kept if line["kind"] == TRAIN] if self._log is not None else []

    def close(self) -> None:
        """End the progress bar where it stands."""
        self._bar.close()

    def _write(self, kind: str, step: int, values: JSON) -> None:
        if self._log is not None:
            self._log.write(kind, step, values)
        self._accelerator.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)
