"""Train a small autoregressive transformer on the tokens of a store: an example to read, copy and change.

    python scripts/examples/train_ar.py --config configs/sample.yaml
    torchrun --standalone --nproc-per-node 8 scripts/examples/train_ar.py --store runs/my/store --tokenizer runs/my/tok
    accelerate launch --mixed_precision bf16 scripts/examples/train_ar.py --config my.yaml --dim 512 --depth 12

The transformer (ar_model.py) sees the embeddings of the tokens so far and predicts the next one, given the class of
the image where there is one. Run the same command again to resume: it goes on in the middle of the epoch, to the
same figures as if it had never stopped. Everything is in one folder, by default STORE-ar/:

    settings.json             what the figures depend on; a run with other settings is refused
    checkpoint.safetensors    weights, optimizer and place in the data, replaced as a whole
    metrics.jsonl             bits per token: cross entropy / ln 2
    samples.png               new images

For your own model change ar_model.py. Your own training loop needs three lines of the one below:

    loader = TokenLoader(store, batch_size, rank=accelerator.process_index, world_size=accelerator.num_processes)
    for batch in loader:                                  # as it is: never `accelerator.prepare` it
        x_BLC = store.idxBl_to_var_input(batch.idx_Bl)    # without the tokenizer
"""

from pipeline.openmp import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is imported

import io
import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from ar_checkpoint import begin_folder, check_settings, load_checkpoint, save_checkpoint
from ar_model import Transformer, classes_of, count_classes, next_token_loss, sample
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from pipeline.config import load_config
from pipeline.errors import ConfigError, VqtokError
from pipeline.files import LocalFiles, is_url
from pipeline.jobs.training.lock import only_training
from pipeline.jobs.training.metrics import MetricsLog
from pipeline.jobs.training.schedule import WarmupThenCosine
from pipeline.loader import TokenBatch, TokenLoader, split_rows
from pipeline.models.tokenizers.pixels import to_pixels
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.store import TokenStore
from pipeline.world import end_process

HELD_OUT, MAX_HELD_OUT = 0.05, 2048
"""Share of the images that training never sees, and how many they are at most."""
HIDDEN_CLASSES = 0.1
"""Share of the training images whose class is not given, so that the model can do without."""
SAMPLES, COLUMNS = 16, 8
"""New images in the picture."""
PICTURE = "samples.png"


@dataclass(frozen=True)
class Settings:
    """What the figures depend on, beside the store and the kind of hardware."""

    steps: int | None
    epochs: int
    batch_size: int
    dim: int
    depth: int
    heads: int
    lr: float
    warmup: int
    every: int
    classes: bool
    seed: int


def train(store: TokenStore, settings: Settings, folder: Path, accelerator: Accelerator) -> Transformer:
    """Train to the end, from the checkpoint in `folder` or from the start."""
    rank, world_size, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    loader, held_out = open_loaders(store, settings, rank, world_size)
    steps = settings.steps or settings.epochs * len(loader)
    schedule = WarmupThenCosine(settings.warmup, steps)

    set_seed(settings.seed)
    num_classes = count_classes(store) if settings.classes else 0
    net = Transformer(store, num_classes, settings.dim, settings.depth, settings.heads)
    optimizer: Any = torch.optim.AdamW(net.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.05)
    model, optimizer = accelerator.prepare(net, optimizer)
    done = load_checkpoint(folder, net, optimizer, loader, accelerator)
    log = MetricsLog(folder, resumed_from=done) if accelerator.is_main_process else None
    accelerator.print(
        f"{len(loader.ordered):,} images of {store.geometry.num_tokens} tokens to train on, "
        f"{len(held_out.ordered):,} held out, "
        f"{num_classes or 'no'} classes, {sum(weight.numel() for weight in net.parameters()) / 1e6:.1f} M weights\n"
        f"bits per token; the zero-order entropy of the store is {entropy_bits(store):.3f}\n"
        + (f"resumed after step {done}\n" if done else "")
        + "    step   epoch     train  held out  class hidden  images/s"
    )

    nats, last, started = torch.zeros((), device=device), done, time.monotonic()
    for step, batch in zip(range(done + 1, steps + 1), forever(loader), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(step - 1)
        # Seeded anew for each step: so no checkpoint needs the state of a generator.
        class_B = classes_of(batch, num_classes, HIDDEN_CLASSES, seed=(settings.seed, step, rank))
        loss = next_token_loss(model, store, batch.to(device), class_B.to(device))
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        nats += loss.detach()

        if step % settings.every == 0 or step == steps:
            images_per_s = (step - last) * settings.batch_size * world_size / (time.monotonic() - started)
            bits = {
                "train": accelerator.reduce(nats, "mean").item() / (step - last) / math.log(2),
                "held_out": evaluate(net, store, held_out, accelerator),
                "class_hidden": evaluate(net, store, held_out, accelerator, hidden=1),
            }
            if not math.isfinite(bits["train"]):
                raise VqtokError(f"the loss became {bits['train']} at step {step}; choose --lr below {settings.lr}")
            if log is not None:
                log.write("bits_per_token", step, bits)
                save_checkpoint(folder, step, net, optimizer, loader, accelerator)
            figures = "{train:9.3f} {held_out:9.3f} {class_hidden:13.3f}".format(**bits)
            accelerator.print(f"{step:>8} {step / len(loader):7.2f} {figures} {images_per_s:9,.0f}")
            nats, last, started = torch.zeros_like(nats), step, time.monotonic()
    return net


def open_loaders(store: TokenStore, settings: Settings, rank: int, world_size: int) -> tuple[TokenLoader, TokenLoader]:
    """Images to train on and images held out, the same in every run, shared out among the processes."""
    rows, held_out_rows = split_rows(store, min(MAX_HELD_OUT, math.ceil(HELD_OUT * len(store))))
    options: dict[str, Any] = {"batch_size": settings.batch_size, "rank": rank, "world_size": world_size}
    # With the remainder dropped, all processes make equally many steps, as they must to share gradients.
    of_training: dict[str, Any] = {"rows": rows, "seed": settings.seed, "remainder": "drop"}
    if store.num_views > 1:  # such as mirror images: each epoch has other ones; of images held out the first counts
        of_training["views"] = "random"
    loader = TokenLoader(store, **of_training, **options)
    if len(loader) == 0:
        raise ConfigError(
            f"--batch-size {settings.batch_size}: {len(rows)} images to train on ({len(held_out_rows)} are held out) "
            f"fill no batch in each of {world_size} processes; choose a smaller one"
        )
    return loader, TokenLoader(store, rows=held_out_rows, shuffle=False, **options)


@torch.no_grad()
def evaluate(
    net: Transformer, store: TokenStore, loader: TokenLoader, accelerator: Accelerator, hidden: float = 0
) -> float:
    """Bits per token of the images of `loader` in all processes, with the class hidden or not."""
    net.eval()
    nats_and_images = torch.zeros(2, device=accelerator.device)
    for batch in loader:
        class_B = classes_of(batch, net.num_classes, hidden).to(accelerator.device)
        nats = next_token_loss(net, store, batch.to(accelerator.device), class_B)
        nats_and_images += torch.stack([nats, torch.ones_like(nats)]) * len(batch)
    net.train()
    nats, images = accelerator.reduce(nats_and_images, "sum").tolist()
    return nats / images / math.log(2)


def forever(loader: TokenLoader) -> Iterator[TokenBatch]:
    """The rest of the epoch, then one epoch after the other."""
    while True:
        yield from loader


def entropy_bits(store: TokenStore) -> float:
    """Zero-order entropy: bits per token for a model that knows only how often each code occurs."""
    share_K = store.code_counts[store.code_counts > 0] / store.code_counts.sum()
    return float(-(share_K * np.log2(share_K)).sum())


def open_tokenizer(store: TokenStore, folder: str | None) -> Tokenizer | None:
    """What decodes the store, or None after a line that says why nothing does. Raises ConfigError, TokenizerError."""
    if folder is None or not store.geometry.decodable:
        layout = f"layout {store.geometry.layout!r} leaves cells of the image out, tokenize with quadrants or raster"
        click.echo(f"no picture of new images: {'name a --tokenizer' if store.geometry.decodable else layout}")
        return None
    tokenizer = load_tokenizer(folder, store.geometry.layout)
    if not np.array_equal(tokenizer.codebook.table, store.codebook):
        raise ConfigError(f"--tokenizer {folder}: its codebook is not that of the store; name the one that made it")
    return tokenizer


def picture(tokenizer: Tokenizer, idx_Bl: list[Tensor], grid: tuple[int, int]) -> bytes:
    """The images of some tokens as a PNG."""
    img_B3HW = to_pixels(tokenizer.decode(idx_Bl, grid), tokenizer.normalization).cpu()
    png = io.BytesIO()
    Image.fromarray(make_grid(img_B3HW, COLUMNS).permute(1, 2, 0).numpy()).save(png, "PNG")
    return png.getvalue()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--config", metavar="FILE", help="YAML configuration that names the store and the tokenizer.")
@click.option(
    "--store", "store_path", metavar="FOLDER", help="Token store, if not that of the configuration; or a URL."
)
@click.option("--tokenizer", "tokenizer_path", metavar="FOLDER", help="Tokenizer, if not that of the configuration.")
@click.option("--output", metavar="FOLDER", help="Where the run is kept.  [default: STORE-ar]")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps in all.  [default: what --epochs come to]")
@click.option("--epochs", type=click.IntRange(1), default=4)
@click.option("--batch-size", type=click.IntRange(1), default=16, help="Images per step and process.")
@click.option("--dim", type=click.IntRange(1), default=128, help="Width of the model.")
@click.option("--depth", type=click.IntRange(1), default=4, help="Blocks.")
@click.option("--heads", type=click.IntRange(1), default=2, help="Attention heads, a divisor of --dim.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=2e-3, help="Peak; a half cosine to 0 follows.")
@click.option("--warmup", type=click.IntRange(0), default=50, help="Steps of the linear rise to --lr.")
@click.option("--every", type=click.IntRange(1), default=100, help="Steps between figures, each with a checkpoint.")
@click.option("--classes/--no-classes", default=True, help="Give the model the labels of the images.")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--sample/--no-sample", "draw", default=True, help="Draw new images at the end.")
@click.option("--temperature", type=click.FloatRange(0, min_open=True), default=1.0)
@click.option("--top-k", type=click.IntRange(1), default=100, help="Codes to draw from.")
def main(
    config: str | None,
    store_path: str | None,
    tokenizer_path: str | None,
    output: str | None,
    draw: bool,
    temperature: float,
    top_k: int,
    **settings: Any,
) -> None:
    """Train a small autoregressive transformer on a token store, or go on where it was interrupted."""
    try:
        named = load_config(config) if config is not None else None
        if named is not None:
            store_path, tokenizer_path = store_path or named.tokenize.store, tokenizer_path or named.tokenizer.path
        if store_path is None:
            raise click.UsageError("name a token store with --store, or a configuration with --config")
        if settings["dim"] % settings["heads"]:
            raise click.UsageError("--dim {dim} is not a multiple of --heads {heads}".format(**settings))
        folder = Path(output or (PurePosixPath(store_path).name if is_url(store_path) else store_path) + "-ar")
        reached = named.tokenize.storage if named and store_path == named.tokenize.store else None
        store = TokenStore(store_path, storage=reached)
        if not store.rule.picks_rows:
            raise ConfigError(
                f"{store_path}: its embeddings follow the rule {store.rule.name!r}, and this transformer takes a "
                "row of the codebook for each token; name another --store"
            )
        store.idxBl_to_var_input(store.read([]).idx_Bl)  # refuses a store without a codebook
        # Said outright, for several processes without it would not find each other on CPUs.
        accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        tokenizer = open_tokenizer(store, tokenizer_path) if draw and accelerator.is_main_process else None
        ours = {**settings, "mixed_precision": accelerator.mixed_precision, "store": store.content_digest}
        check_settings(folder, ours)
        with only_training(folder) if accelerator.is_main_process else nullcontext():
            if accelerator.is_main_process:
                begin_folder(folder, ours)
            net = train(store, Settings(**settings), folder, accelerator)
            if tokenizer is not None:
                class_B = torch.arange(SAMPLES, device=accelerator.device) % max(1, net.num_classes)
                idx_Bl = sample(net, store, class_B, temperature, top_k, settings["seed"])
                LocalFiles(folder).put(PICTURE, picture(tokenizer, idx_Bl, store.geometry.grid))
                click.echo(f"{folder / PICTURE}: {SAMPLES} new images")
        accelerator.end_training()
        if accelerator.num_processes > 1:
            end_process()
    except (VqtokError, OSError) as error:
        click.echo(f"train_ar: {error}", err=True)
        sys.exit(getattr(error, "exit_status", 1))


if __name__ == "__main__":
    main()
