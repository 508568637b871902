"""Held-out images: how well the tokenizer rebuilds them, in figures and in a picture."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import BadSample, SourceError
from pipeline.jobs.pictures import PICTURED, comparison_png, evenly_spaced
from pipeline.jobs.tally import MeanImage, Tally
from pipeline.jobs.training.network import TrainedNetwork
from pipeline.jobs.training.shards import read_all
from pipeline.jobs.training.source_files import held_out_shards
from pipeline.models.tokenizers.pixels import Normalizer, to_pixels
from pipeline.records import JSON, Normalization
from pipeline.source.images.transform import ImageTransform
from pipeline.source.selection import Selection

MAX_IMAGES = 2048
"""Held-out images that are used, the first ones; all processes together keep their pixels in memory."""


@dataclass(frozen=True)
class HeldOut:
    """One process's share of the held-out images."""

    img_B3HW: Tensor
    """uint8 on the CPU, every world_size-th image."""
    images: int
    """Images of all processes."""
    skipped: int
    """Bad samples met in reading them."""


def load_held_out(config: Config, rank: int, world_size: int) -> HeldOut | None:
    """Decode this process's share of the held-out images; None without `train.holdout`.

    Raises ConfigError for patterns without files, and SourceError when there are fewer images than processes.
    """
    shards = held_out_shards(config)
    if not shards:
        return None
    selection, transform = Selection(config.source), ImageTransform(config.image.centered)
    images: list[Tensor] = []
    skipped = 0
    for sample in read_all(shards, config.source):
        try:
            images.append(transform(selection.image(sample)).cpu())
        except BadSample:
            skipped += 1
        if len(images) == MAX_IMAGES:
            break
    if len(images) < world_size:
        raise SourceError(
            f"train.holdout: {len(images)} usable and {skipped} bad images for {world_size} processes; "
            "name source shards with more"
        )
    return HeldOut(torch.stack(images[rank::world_size]), len(images), skipped)


@dataclass(frozen=True)
class Evaluation:
    """The held-out images of all processes, rebuilt."""

    tally: Tally
    values: JSON
    """The figures of one line of metrics."""
    png: bytes
    """Some of this process's originals above their reconstructions, the same ones every time."""


@torch.no_grad()
def evaluate(
    accelerator: Accelerator,
    model: TrainedNetwork,
    held_out: HeldOut,
    normalization: Normalization,
    batch_size: int,
) -> Evaluation:
    """Rebuild the held-out images. All processes call this together and get the same tally.

    Args:
        model: not wrapped for distributed training; comes back in training mode.
    """
    model.eval()
    tally = Tally.empty(model.quantize.num_embeddings, accelerator.device)
    normalize = Normalizer(normalization)
    rebuilt = []
    for shown_B3HW in torch.split(held_out.img_B3HW, batch_size):
        img_B3HW = shown_B3HW.to(accelerator.device)
        reconstruction_B3HW, _, indices_N = model(normalize(img_B3HW))
        pixels_B3HW = to_pixels(reconstruction_B3HW.float(), normalization)
        tally.add(img_B3HW, pixels_B3HW, indices_N)
        rebuilt.append(pixels_B3HW.cpu())
    model.train()
    pictured = evenly_spaced(PICTURED, len(held_out.img_B3HW))
    tally = Tally(accelerator.reduce(tally.sums, "sum"))
    values: JSON = {
        "psnr": tally.psnr,
        "perplexity": tally.perplexity,
        "codes_used": tally.codes_used,
        "images": held_out.images,
        "skipped": held_out.skipped,
    }
    png = comparison_png(held_out.img_B3HW[pictured], torch.cat(rebuilt)[pictured])
    return Evaluation(tally, values, png)


def mean_image_psnr(accelerator: Accelerator, img_B3HW: Tensor) -> float | None:
    """PSNR in dB of predicting each of all processes' uint8 images by the mean of the others; see `MeanImage`."""
    own = MeanImage.of(img_B3HW).sums.to(accelerator.device)
    return MeanImage(accelerator.reduce(own, "sum")).psnr
