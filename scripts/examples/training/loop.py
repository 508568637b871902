"""The training loop: plain torch, with Accelerate for devices, processes and mixed precision.

Shape letters: B images, L tokens of an image.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from pipeline.errors import VqtokError
from pipeline.jobs.training.metrics import MetricsLog
from pipeline.jobs.training.schedule import WarmupThenCosine
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data import classes_of, forever, open_loaders
from training.figures import block_entropies, block_names, entropy_bits, heading, line
from training.task import Settings, Task


def train(
    task: Task, store: TokenStore, num_classes: int, settings: Settings, folder: Path, accelerator: Accelerator
) -> nn.Module:
    """Train to the end, from the checkpoint in `folder` or from the start.

    Raises ConfigError as `open_loaders` does, VqtokError for a checkpoint that cannot be read, and where the loss is no
    longer finite.
    """
    rank, world_size, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    loader, held_out = open_loaders(store, settings.batch_size, settings.seed, rank, world_size)
    steps = settings.steps or settings.epochs * len(loader)
    schedule = WarmupThenCosine(settings.warmup, steps)

    set_seed(settings.seed)
    net = task.model(store, num_classes, settings.size)
    optimizer: Any = torch.optim.AdamW(net.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.05)
    model, optimizer = accelerator.prepare(net, optimizer)
    done = load_checkpoint(folder, net, optimizer, loader, accelerator)
    log = MetricsLog(folder, resumed_from=done) if accelerator.is_main_process else None
    opening = _opening(task, store, net, num_classes, len(loader.ordered), len(held_out.ordered), done)
    accelerator.print(opening, flush=True)

    nats, last, started = torch.zeros((), device=device), done, time.monotonic()
    for step, batch in zip(range(done + 1, steps + 1), forever(loader), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(step - 1)
        batch = batch.to(device)
        class_B = classes_of(batch, num_classes)
        loss = task.nats(model, store, batch, class_B, seed=(settings.seed, step)).mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        nats += loss.detach()

        if step % settings.every == 0 or step == steps:
            images_per_s = (step - last) * settings.batch_size * world_size / (time.monotonic() - started)
            train_bits = accelerator.reduce(nats, "mean").item() / (step - last) / math.log(2)
            bits = {"train": train_bits, **evaluate(task, net, store, held_out, num_classes, accelerator)}
            if not math.isfinite(train_bits):
                raise VqtokError(f"the loss became {train_bits} at step {step}; choose --lr below {settings.lr}")
            if log is not None:
                log.write("bits_per_token", step, bits)
                save_checkpoint(folder, step, net, optimizer, loader, accelerator)
            accelerator.print(line(step, step / len(loader), bits, images_per_s), flush=True)
            nats, last, started = torch.zeros_like(nats), step, time.monotonic()
    return net


@torch.no_grad()
def evaluate(
    task: Task, net: nn.Module, store: TokenStore, loader: TokenLoader, num_classes: int, accelerator: Accelerator
) -> dict[str, float]:
    """Bits per token of the images of `loader` in all processes, with their classes and with these hidden.

    With their classes also for each block, where the task tells.
    """
    net.eval()
    nats_2L = torch.zeros(2, store.geometry.num_tokens, device=accelerator.device)
    images = torch.zeros((), device=accelerator.device)
    for batch in loader:
        batch = batch.to(accelerator.device)
        class_B = classes_of(batch, num_classes)
        for row, classes in enumerate((class_B, torch.full_like(class_B, num_classes))):
            nats_2L[row] += task.held_out_nats(net, store, batch, classes).sum(dim=0)
        images += len(batch)
    net.train()
    bits_2L = accelerator.reduce(nats_2L, "sum") / accelerator.reduce(images, "sum") / math.log(2)
    held_out, class_hidden = bits_2L.mean(dim=1).tolist()
    by_block = _by_block(store, bits_2L[0]) if task.by_block else {}
    return {"held_out": held_out, "class_hidden": class_hidden, **by_block}


def _by_block(store: TokenStore, bits_L: Tensor) -> dict[str, float]:
    means = [block.mean().item() for block in bits_L.split(list(store.block_lengths))]
    return dict(zip(block_names(store), means, strict=True))


def _opening(
    task: Task, store: TokenStore, net: nn.Module, num_classes: int, images: int, held_out: int, done: int
) -> str:
    """What is printed before the figures."""
    weights = sum(weight.numel() for weight in net.parameters()) / 1e6
    names = ["train", "held_out", "class_hidden"]
    lines = [
        f"{images:,} images of {store.geometry.num_tokens} tokens to train on, {held_out:,} held out, "
        f"{num_classes or 'no'} classes, {weights:.1f} M weights",
        f"bits per token; the zero-order entropy of the store is {entropy_bits(store.code_counts):.3f}",
    ]
    if task.by_block:
        blocks = block_names(store)
        each = [f"{name} {bits:.3f}" for name, bits in zip(blocks, block_entropies(store), strict=True)]
        lines.append("of each scale by itself: " + ", ".join(each))
        names += blocks
    if done:
        lines.append(f"resumed after step {done}")
    return "\n".join([*lines, heading(names)])
