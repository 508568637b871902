"""The command line of the training scripts, and what a run does before and after the loop."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click
import torch
from accelerate import Accelerator

from pipeline.config import load_config
from pipeline.errors import VqtokError
from pipeline.files import LocalFiles, is_url
from pipeline.jobs.training.lock import only_training
from pipeline.storage import Storage
from pipeline.store import TokenStore
from pipeline.world import end_process
from training.checkpoint import begin_folder, check_settings
from training.data import count_classes
from training.drawing import Drawing
from training.loop import train
from training.pictures import open_tokenizer, png_of
from training.task import Settings, Task

PICTURE = "samples.png"


@dataclass(frozen=True)
class Place:
    """A folder or URL, and how that is reached."""

    path: str | None
    storage: Storage | None = None

    def or_else(self, named: "Place") -> "Place":
        """What a configuration names, unless the command line names another."""
        return named if self.path in (None, named.path) else self


Main = Callable[..., None]

_OPTIONS = (
    click.option("--config", metavar="FILE", help="YAML configuration that names the store and the tokenizer."),
    click.option(
        "--store", "store_path", metavar="FOLDER", help="Token store, if not that of the configuration; or a URL."
    ),
    click.option(
        "--tokenizer", "tokenizer_path", metavar="FOLDER", help="Tokenizer, if not that of the configuration."
    ),
    click.option("--output", metavar="FOLDER", help="Where the run is kept.  [default: STORE-ar, -var or -masked]"),
    click.option("--steps", type=click.IntRange(1), help="Optimizer steps in all.  [default: what --epochs come to]"),
    click.option("--epochs", type=click.IntRange(1), default=4),
    click.option("--batch-size", type=click.IntRange(1), default=16, help="Images per step and process."),
    click.option("--dim", type=click.IntRange(1), default=128, help="Width of the model."),
    click.option("--depth", type=click.IntRange(1), default=4, help="Blocks."),
    click.option("--heads", type=click.IntRange(1), default=2, help="Attention heads, a divisor of --dim."),
    click.option(
        "--lr", type=click.FloatRange(0, min_open=True), default=2e-3, help="Peak; a half cosine to 0 follows."
    ),
    click.option("--warmup", type=click.IntRange(0), default=50, help="Steps of the linear rise to --lr."),
    click.option("--every", type=click.IntRange(1), default=100, help="Steps between figures, each with a checkpoint."),
    click.option("--classes/--no-classes", default=True, help="Give the model the labels of the images."),
    click.option("--seed", type=click.IntRange(0), default=0),
    click.option("--sample/--no-sample", "draw", default=True, help="Draw new images at the end."),
    click.option("--temperature", type=click.FloatRange(0, min_open=True), default=1.0),
    click.option("--top-k", type=click.IntRange(1), default=100, help="Codes to draw from."),
)


def training_command(main: Main) -> click.Command:
    """A click command with the options of all training scripts, before those of its own."""
    for option in reversed(_OPTIONS):
        main = option(main)
    return click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})(main)


def run(
    task: Task,
    config: str | None,
    store_path: str | None,
    tokenizer_path: str | None,
    output: str | None,
    draw: bool,
    temperature: float,
    top_k: int,
    **settings: Any,
) -> None:
    """Train, or go on where it was interrupted, and draw new images. Ends the process where that cannot be."""
    if settings["dim"] % settings["heads"]:
        raise click.UsageError("--dim {dim} is not a multiple of --heads {heads}".format(**settings))
    try:
        store, tokenizer = Place(store_path), Place(tokenizer_path)
        if config is not None:
            named = load_config(config)
            store = store.or_else(Place(named.tokenize.store, named.tokenize.storage))
            tokenizer = tokenizer.or_else(Place(named.tokenizer.path, named.tokenizer.storage))
        if store.path is None:
            raise click.UsageError("name a token store with --store, or a configuration with --config")
        folder = Path(output or _beside(store.path, task.name))
        opened = TokenStore(store.path, storage=store.storage)
        drawing = Drawing(temperature, top_k, settings["seed"]) if draw else None
        _train_and_draw(task, opened, tokenizer, folder, drawing, Settings(**settings))
    except (VqtokError, OSError) as error:
        click.echo(f"train_{task.name}: {error}", err=True)
        sys.exit(getattr(error, "exit_status", 1))


def _beside(store_path: str, name: str) -> str:
    return f"{PurePosixPath(store_path).name if is_url(store_path) else store_path}-{name}"


def _train_and_draw(
    task: Task, store: TokenStore, tokenizer_place: Place, folder: Path, drawing: Drawing | None, settings: Settings
) -> None:
    task.check(store)
    # Said outright, for several processes without it would not find each other on CPUs.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    draws = drawing is not None and accelerator.is_main_process
    tokenizer = open_tokenizer(store, tokenizer_place.path, tokenizer_place.storage) if draws else None
    num_classes = count_classes(store) if settings.classes else 0
    ours = {
        "task": task.name,
        **asdict(settings),
        "mixed_precision": accelerator.mixed_precision,
        "store": store.content_digest,
    }
    check_settings(folder, ours)
    with only_training(folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            begin_folder(folder, ours)
        net = train(task, store, num_classes, settings, folder, accelerator)
        if drawing is not None and tokenizer is not None:
            class_B = torch.arange(task.samples, device=accelerator.device) % max(1, num_classes)
            idx_Bl = task.sample(net.eval(), store, class_B, drawing)
            LocalFiles(folder).put(PICTURE, png_of(task.images(tokenizer, idx_Bl, store.geometry.grid), tokenizer))
            click.echo(f"{folder / PICTURE}: {len(class_B)} new images")
    accelerator.end_training()
    if accelerator.num_processes > 1:
        end_process()
