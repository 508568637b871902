"""What stored tokens save: training steps from a store, beside the same steps with the tokenizer in the loop.

    python scripts/examples/bench_ar.py --config configs/sample.yaml

Both sides train the transformer of train_ar.py on the same images, in turns. One reads batches from the store; the
other reads tars, decodes the images on all cores ahead of the model, and encodes them on the model's device. Prints
a Markdown table for docs/ar.md.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import click
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from train_ar import NextToken
from training.transformer import Size

from pipeline.config import Config, load_config
from pipeline.loader import TokenBatch, TokenLoader
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.overlap import prefetch
from pipeline.process.threads import one_thread
from pipeline.source.batches import image_batches
from pipeline.source.find import find_source_shards
from pipeline.source.images.transform import ImageTransform
from pipeline.source.reading import open_shard
from pipeline.source.selection import Selection
from pipeline.store import TokenStore
from pipeline.world import available_cores

SIZES: dict[str, Size | None] = {
    "none, the batches alone": None,
    "dim 64, depth 2": Size(dim=64, depth=2, heads=2),
    "dim 128, depth 4": Size(dim=128, depth=4, heads=4),
}
"""Of the transformer; None for none."""


@click.command()
@click.option("--config", required=True, metavar="FILE", help="YAML configuration of a finished store and its images.")
@click.option("--batches", default=8, show_default=True, help="Batches in a round, of tokenize.batch_size images.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of each side, in turns; the fastest counts.")
@click.option("--cpu-time", is_flag=True, help="Count the CPU time of all threads: where others use the cores, too.")
def main(config: str, batches: int, rounds: int, cpu_time: bool) -> None:
    """Measure training steps from stored tokens and with the tokenizer in the loop, side by side."""
    compare(load_config(config), SIZES, batches, rounds, time.process_time if cpu_time else time.monotonic)


def compare(
    job: Config, sizes: Mapping[str, Size | None], batches: int, rounds: int, clock: Callable[[], float]
) -> None:
    """Print the table, a row for each size. Raises ClickException where both sides do not do the same work.

    Args:
        clock: tells seconds.
    """
    device = Accelerator().device
    store = TokenStore(job.tokenize.store, storage=job.tokenize.storage)
    tokenizer = load_tokenizer(job.tokenizer.path, job.tokenize.layout, storage=job.tokenizer.storage)
    tokenizer.to(device, job.tokenize.precision)
    sides: dict[str, Callable[[], Iterator[TokenBatch]]] = {
        "stored": lambda: from_store(store, job.tokenize.batch_size, batches),
        "encoded": lambda: from_images(job, store, tokenizer, device, batches),
    }
    require_equal(*map(list, (side() for side in sides.values())))
    print("| transformer | stored tokens | tokenizer in the loop | ratio |\n| --- | --- | --- | --- |")
    for name, size in sizes.items():
        step = make_step(store, size, device)
        ms = dict.fromkeys(sides, math.inf)
        for _ in range(rounds):
            for side, source in sides.items():
                ms[side] = min(ms[side], 1000 * seconds_of(step, source(), clock) / batches)
        ratio = ms["encoded"] / ms["stored"]
        print(f"| {name} | {ms['stored']:,.1f} ms | {ms['encoded']:,.1f} ms | {ratio:.2f} |", flush=True)


def from_store(store: TokenStore, batch_size: int, batches: int) -> Iterator[TokenBatch]:
    """Stored tokens, in order."""
    return itertools.islice(TokenLoader(store, batch_size, shuffle=False), batches)


def from_images(
    job: Config, store: TokenStore, tokenizer: Tokenizer, device: torch.device, batches: int
) -> Iterator[TokenBatch]:
    """The same batches out of the tars: read and decoded ahead on all cores, encoded here."""
    selection, transform, batch_size = Selection(job.source), ImageTransform(job.image), job.tokenize.batch_size
    readers = (open_shard(shard, job.source, digests=False) for shard in find_source_shards(job.source))
    samples = itertools.islice(itertools.chain.from_iterable(readers), batches * batch_size)
    with ThreadPoolExecutor(available_cores(), "decode", one_thread) as decoders:
        for batch in prefetch(image_batches(samples, selection, transform, batch_size, decoders), depth=2):
            pixels_B3HW = normalize_pixels(batch.img_B3HW.to(device), tokenizer.normalization)
            tokens_BL = torch.cat(tokenizer.encode(pixels_B3HW), dim=1)[: len(batch.rows)]
            labels_B = torch.tensor([row.label for row in batch.rows])
            yield TokenBatch(tokens_BL, np.zeros(len(batch.rows), np.int64), store).with_label(labels_B)


def require_equal(stored: list[TokenBatch], encoded: list[TokenBatch]) -> None:
    """Both sides must do the same work."""
    ours, theirs = (torch.cat([batch.tokens.long().cpu() for batch in batches]) for batches in (stored, encoded))
    agreement = ours.eq(theirs).float().mean().item() if ours.shape == theirs.shape else 0.0
    if agreement < 0.99:
        raise click.ClickException(f"the images are not those of the store: {agreement:.1%} of their tokens agree")


def make_step(store: TokenStore, size: Size | None, device: torch.device) -> Callable[[TokenBatch], Tensor]:
    """What is done with a batch: an optimizer step; nothing but the embeddings without a transformer."""
    if size is None:
        return lambda batch: store.idxBl_to_var_input(batch.to(device).idx_Bl)
    task = NextToken()
    model = task.model(store, 0, size).to(device)
    optimizer = torch.optim.AdamW(model.parameters())

    def step(batch: TokenBatch) -> Tensor:
        no_class_B = torch.zeros(len(batch), dtype=torch.int64, device=device)
        loss = task.nats(model, store, batch.to(device), no_class_B, seed=()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def seconds_of(
    step: Callable[[TokenBatch], Tensor], batches: Iterator[TokenBatch], clock: Callable[[], float]
) -> float:
    """Seconds of `clock` that a step for each of the batches takes, work of the device included."""
    started = clock()
    for batch in batches:
        result = step(batch)
    result.sum().item()
    return clock() - started


if __name__ == "__main__":
    main()
