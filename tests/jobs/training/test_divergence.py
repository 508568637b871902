"""When a training counts as gone wrong: explosions are told from what healthy trainings do."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pipeline.config import TrainConfig
from pipeline.errors import TrainingDiverged
from pipeline.jobs.training.divergence import LossWatch, Verdict
from pipeline.records import JSON

FALLING = [0.03 + 0.3 * math.exp(-step / 30) for step in range(200)]
SINGLE_IMAGES = list(np.random.default_rng(0).lognormal(np.log(0.05), 1, 200))


def watched(losses: list[float], log_every: int, watch: LossWatch | None = None) -> Iterator[LossWatch]:
    """A watch after each line of metrics over single steps' losses."""
    watch = watch or LossWatch()
    for stop in range(log_every, len(losses) + 1, log_every):
        watch.observe(stop, float(np.mean(losses[stop - log_every : stop])))
        yield watch


@pytest.mark.parametrize("log_every", [1, 7, 20, 100])
@pytest.mark.parametrize(
    "losses",
    [
        FALLING,
        [3.4, 0.6, 0.3, *FALLING],  # too fast at first, and recovering
        [*FALLING, 0.4, 0.8, 0.5, *FALLING],  # a spike, and back to where it began
        [*FALLING, 1000, *FALLING],  # one bad batch
        SINGLE_IMAGES,  # batches of one image, some of them thirty times as hard as others
        [loss / 1e4 for loss in [*FALLING, *[1] * 100, *FALLING]],  # images almost of one colour
        [0.97 * 0.99**step for step in range(200)],  # images almost black
    ],
)
def test_no_healthy_training_is_ended(losses: list[float], log_every: int) -> None:
    assert not any(watch.exploded for watch in watched(losses, log_every))
    assert not watch_of(losses, log_every).too_high


def watch_of(losses: list[float], log_every: int) -> LossWatch:
    *_, watch = watched(losses, log_every)
    return watch


@pytest.mark.parametrize("log_every", [1, 7, 20])
@pytest.mark.parametrize(
    ("losses", "from_step"),
    [
        ([0.25, *[1e20] * 199], 1),  # at once: there never was a good loss
        ([*[40.0] * 200], 0),
        ([*FALLING, *(0.03 * 1.5**step for step in range(200))], 200),
        ([*FALLING, *[0.45] * 200], 200),  # no better than a blank picture, after much better ones
    ],
)
def test_an_explosion_is_noticed_and_nothing_after_it_is_saved(
    losses: list[float], from_step: int, log_every: int
) -> None:
    watches = list(watched(losses, log_every))
    assert watches[-1].exploded
    *_, healthy = [LossWatch(), *watched(losses[:from_step], log_every)]
    assert not healthy.too_high
    seen = [(step, watch.too_high) for step, watch in enumerate(watched(losses, log_every), start=1)]
    first_high = min(step * log_every for step, high in seen if high)
    assert from_step < first_high <= from_step + 40
    assert all(high for step, high in seen if step * log_every >= first_high)


def test_a_resumed_watch_judges_as_one_that_was_not_interrupted() -> None:
    losses = [*FALLING, *[0.45] * 60]
    whole = watch_of(losses, 7)
    resumed = LossWatch()
    for stop in range(7, len(losses) + 1, 7):
        resumed.observe(stop, float(f"{np.mean(losses[stop - 7 : stop]):.6g}"))
    assert (resumed.too_high, resumed.exploded) == (whole.too_high, whole.exploded) == (True, True)
    assert resumed.best == pytest.approx(whole.best, rel=1e-5)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator()


def verdict(accelerator: Accelerator, folder: Path, model: nn.Module, lines: list[JSON], done: int = 0) -> Verdict:
    train = TrainConfig(learning_rate=30, warmup_steps=0, steps=60)
    return Verdict(accelerator, folder, model, train, lines, done)


def lines_of(losses: list[float]) -> list[JSON]:
    return [{"step": 10 * n, "reconstruction_loss": loss} for n, loss in enumerate(losses, start=1)]


def test_a_checkpoint_of_a_diverged_training_is_not_resumed(accelerator: Accelerator, tmp_path: Path) -> None:
    # The newest one is damaged, say: it was not resumed from.
    for name in ("step-000030", "step-000040", "step-1000000", "step-999999", "step-000035.bak"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    model = nn.Linear(2, 2)
    with pytest.raises(TrainingDiverged) as caught:
        verdict(accelerator, tmp_path, model, lines_of([0.3, 0.2, 4e5, 4e6]), done=40)
    message = str(caught.value)
    assert "at step 40 the reconstruction loss was 4e+06, its best 0.238" in message
    assert "step-000040 was saved all the same; delete it and lower train.learning_rate" in message
    assert "(30) or raise train.warmup_steps (0)" in message
    assert message.endswith("the checkpoint before it is " + str(tmp_path / "checkpoints" / "step-000030"))
    healthy = verdict(accelerator, tmp_path, model, lines_of([0.3, 0.2, 0.4, 0.1]))
    assert healthy.may_save(40)
    healthy.on_figures(50, {"loss": 1e6, "reconstruction_loss": 1e6})
    assert not healthy.may_save(50)
    healthy.on_end("held-out", 20, 12)  # it may have been one bad batch
    healthy.on_figures(60, {"loss": 1e6, "reconstruction_loss": 1e6})
    with pytest.raises(TrainingDiverged, match=r"at step 60 the reconstruction loss was 1e\+06, its best 0\.2"):
        healthy.on_end("held-out", 20, 12)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_or_a_weight_that_is_not_finite_ends_a_training(
    accelerator: Accelerator, tmp_path: Path, loss: float
) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(TrainingDiverged, match=f"at step 3 the loss became {loss}.*there is no checkpoint before it"):
        verdict(accelerator, tmp_path, model, []).on_figures(3, {"loss": loss, "reconstruction_loss": 0.2})
    with torch.no_grad():
        model.bias[1] = loss
    with pytest.raises(TrainingDiverged, match="at step 3 weights became infinite or NaN"):
        verdict(accelerator, tmp_path, model, []).may_save(3)


def test_an_outcome_worse_than_the_mean_image_is_refused(accelerator: Accelerator, tmp_path: Path) -> None:
    judge = verdict(accelerator, tmp_path, nn.Linear(2, 2), [])
    judge.on_end("held-out", 12.3, 12.2)
    judge.on_end("held-out", 12.3, None)
    with pytest.raises(
        TrainingDiverged, match=r"with a PSNR of 12\.10 dB, are worse than their mean image, with 12\.2"
    ):
        judge.on_end("held-out", 12.1, 12.2)
