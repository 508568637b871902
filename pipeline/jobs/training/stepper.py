"""One optimizer step: forward, backward and update over `train.gradient_accumulation` batches."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from pipeline.config import TrainConfig
from pipeline.jobs.tally import Tally
from pipeline.jobs.training.network import TrainedNetwork
from pipeline.jobs.training.stream import TrainBatch
from pipeline.models.tokenizers.pixels import Normalizer, to_pixels
from pipeline.records import JSON, Normalization


@dataclass
class Interval:
    """What one process has seen since the last line of metrics. Nothing here waits for an accelerator."""

    losses: Tensor | None = None
    """float32 [2], summed over batches: reconstruction and quantizer."""
    batches: int = 0
    images: int = 0
    skipped: int = 0
    last: tuple[Tensor, Tensor, Tensor] | None = None
    """Images (uint8), reconstruction and indices of the newest batch with images; of an empty one if none had any."""
    learning_rate: float = 0.0
    """Of the newest step."""
    started: float = field(default_factory=time.monotonic)

    def add(self, batch: TrainBatch, losses: Tensor, last: tuple[Tensor, Tensor, Tensor]) -> None:
        """Count one batch."""
        self.losses = losses if self.losses is None else self.losses + losses
        self.batches += 1
        self.images += len(batch.img_B3HW)
        self.skipped += batch.skipped
        if self.last is None or len(batch.img_B3HW) > 0:
            self.last = last


class Stepper:
    """Trains what the accelerator has prepared.

    Args:
        optimizer, scheduler: as `accelerator.prepare` returns them.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        scheduler: Any,
        normalization: Normalization,
        train: TrainConfig,
    ) -> None:
        self._accelerator = accelerator
        self._model = model
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._unwrapped: TrainedNetwork = accelerator.unwrap_model(model)
        self._quantizer = self._unwrapped.quantize
        self._normalization = normalization
        self._normalize = Normalizer(normalization)
        self._train = train

    def settle(self, size: tuple[int, int]) -> None:
        """Let DistributedDataParallel find where in its messages each gradient goes. All ranks call this together.

        It finds that from the order in which the gradients of its first step are ready, for all steps from the second
        on; and by the place of a number in a message, three ranks or more add it up in one order or another. Without
        this the first step of a resumed training would add up otherwise than the same step of one that went on.

        Args:
            size: height and width of the images.
        """
        if not isinstance(self._model, DistributedDataParallel):
            return
        self._model.eval()  # in which nothing is drawn or counted
        nothing_B3HW = torch.zeros(1, 3, *size, device=self._accelerator.device)
        reconstruction_B3HW, loss, _ = self._model(nothing_B3HW)
        (reconstruction_B3HW.float().mean() + loss).backward()
        self._optimizer.zero_grad()
        self._model.train()

    def step(self, batches: Iterator[TrainBatch], window: Interval) -> None:
        """Take the batches of one optimizer step and update the weights."""
        window.learning_rate = self._scheduler.get_last_lr()[0]
        for batch in self._taken(batches):
            with self._accelerator.accumulate(self._model):
                self._quantizer.accumulates = not self._accelerator.sync_gradients
                self._forward_and_backward(batch, window)
                if self._accelerator.sync_gradients:
                    self._accelerator.clip_grad_norm_(self._model.parameters(), self._train.max_gradient_norm)
                self._optimizer.step()
                if self._accelerator.sync_gradients and not self._accelerator.optimizer_step_was_skipped:
                    self._scheduler.step()
                self._optimizer.zero_grad()

    def _taken(self, batches: Iterator[TrainBatch]) -> Iterable[TrainBatch]:
        """The batches of one step. Codes that wait for a place get it from the vectors of all of them."""
        count = self._train.gradient_accumulation
        if count == 1 or not self._quantizer.codes_wait:
            return (next(batches) for _ in range(count))
        taken = [next(batches) for _ in range(count)]
        with torch.no_grad(), self._accelerator.autocast():
            z_BChw = torch.cat([self._unwrapped.encode(self._normalized(batch)[1]) for batch in taken])
        self._quantizer.place_codes(z_BChw)
        return taken

    def _normalized(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """The images of a batch on the device: uint8, and as the model takes them."""
        img_B3HW = batch.img_B3HW.to(self._accelerator.device, non_blocking=True)
        return img_B3HW, self._normalize(img_B3HW)

    def _forward_and_backward(self, batch: TrainBatch, window: Interval) -> None:
        img_B3HW, target_B3HW = self._normalized(batch)
        reconstruction_B3HW, vq_loss, indices_N = self._model(target_B3HW)
        reconstruction_loss = _mean_squared_error(reconstruction_B3HW.float(), target_B3HW)
        self._accelerator.backward(reconstruction_loss + vq_loss)
        losses = torch.stack([reconstruction_loss.detach(), vq_loss.detach()])
        window.add(batch, losses, (img_B3HW, reconstruction_B3HW.detach(), indices_N))

    def summarize(self, window: Interval, vocab_size: int) -> JSON:
        """The figures of one line of metrics, over all processes; all of them call this together.

        Losses are means over the window, PSNR (dB) and perplexity those of the newest batch.
        """
        assert window.losses is not None
        assert window.last is not None
        device = self._accelerator.device
        reconstruction, vq = self._accelerator.reduce(window.losses / window.batches, "mean").tolist()
        counts = torch.tensor([window.images, window.skipped], device=device)
        images, skipped = self._accelerator.reduce(counts, "sum").tolist()
        tally = self._tally(window.last, vocab_size)
        return {
            "loss": reconstruction + vq,
            "reconstruction_loss": reconstruction,
            "vq_loss": vq,
            "psnr": tally.psnr,
            "perplexity": tally.perplexity,
            "learning_rate": window.learning_rate,
            "skipped": skipped,
            "images_per_second": images / (time.monotonic() - window.started),
        }

    def _tally(self, batch: tuple[Tensor, Tensor, Tensor], vocab_size: int) -> Tally:
        img_B3HW, reconstruction_B3HW, indices_N = batch
        tally = Tally.empty(vocab_size, img_B3HW.device)
        tally.add(img_B3HW, to_pixels(reconstruction_B3HW.float(), self._normalization), indices_N)
        return Tally(self._accelerator.reduce(tally.sums, "sum"))


def _mean_squared_error(reconstruction_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """0, with a gradient of nothing, for a batch whose samples are all bad: other processes wait for the gradient."""
    if len(target_B3HW) == 0:
        return (reconstruction_B3HW - target_B3HW).square().sum()
    return F.mse_loss(reconstruction_B3HW, target_B3HW)
