"""The same tokens twice, in every precision, in short batches, on two streams.

Shape letters: B images, N vectors, K codes, C their length.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from gpu.check import Bench, Line
from gpu.collection import picture
from pipeline.config import Config
from pipeline.errors import TokenizerError
from pipeline.jobs.work.machine import Machine, this_machine
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import Precision
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.images.transform import ImageTransform
from pipeline.world import current_world

_LEAST_AGREEMENT = {"fp32": 0.999, "tf32": 0.95, "bf16": 0.8, "fp16": 0.95}
"""Share of tokens; less would be more than rounding. In float32 what differs must be a tie besides."""
_TIE = 1e-5
"""Of squared lengths: by so much float32 sums of some hundred products are off."""


def digest_twice(bench: Bench) -> Iterator[Line]:
    """A collection tokenized twice in each precision that is used for long runs."""
    for precision in ("fp32", "bf16") if bench.on_gpu else ("fp32",):
        options = {"precision": precision}
        one, _ = bench.collection.tokenized(f"once-{precision}", tokenize=options)
        two, rate = bench.collection.tokenized(f"twice-{precision}", tokenize=options)
        yield Line(
            f"content digest equal twice, {precision}", one == two, f"{one[:12]} {two[:12]}; {rate:,.0f} images/s"
        )


def tokens_against_the_cpu(bench: Bench) -> Iterator[Line]:
    """Tokens of each precision beside those of the CPU in float32, and in float32 the distances of what differs."""
    img_B3HW = pixels(bench, 16 if bench.quick else 64)
    expected = _tokens(_tokenizer(bench, "cpu", "fp32"), img_B3HW)
    precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16") if bench.on_gpu else ("fp32",)
    for precision in precisions:
        found = _tokens(_tokenizer(bench, bench.device, precision), img_B3HW)
        agreement = (found == expected).double().mean().item()
        ok = agreement >= _LEAST_AGREEMENT[precision]
        figures = f"{agreement:.4%} of {expected.numel():,} tokens"
        if precision == "fp32":
            excess = _excess(bench, img_B3HW, found)
            ok, figures = (
                ok and excess < _TIE,
                f"{figures}; what differs is farther by {excess:.1e} of squared lengths at most",
            )
        yield Line(f"tokens against the CPU, {precision}", ok, figures)


def short_last_batch(bench: Bench) -> Iterator[Line]:
    """The first rows of a full batch beside a batch in which only those count, and behind them is something else."""
    full = pixels(bench, bench.collection.batch)
    short = full.clone(memory_format=torch.preserve_format)
    rows = max(1, len(full) // 3)
    short[rows:] = 0
    with _machine(bench) as machine:
        expected = machine.encoder.submit(full, len(full)).result()[0]
        found = machine.encoder.submit(short, rows).result()[0]
    yield Line("a short last batch", bool((found == expected[:rows]).all()), f"{rows} of {len(full)} rows")


def two_streams_against_one(bench: Bench) -> Iterator[Line]:
    """Batches that are encoded at the same time beside the same ones after each other."""
    full = pixels(bench, bench.collection.batch)
    batches = [full.roll(number, 0).contiguous(memory_format=torch.channels_last) for number in range(8)]
    with _machine(bench) as machine:
        alone = [machine.encoder.submit(batch, len(batch)).result()[0] for batch in batches]
        together = [machine.encoder.submit(batch, len(batch)) for _ in range(5) for batch in batches]
        equal = sum(
            bool((encoding.result()[0] == alone[number % len(batches)]).all())
            for number, encoding in enumerate(together)
        )
        threads = machine.encoder.threads
    yield Line(
        f"{threads} encode threads against one", equal == len(together), f"{equal} of {len(together)} batches equal"
    )


def pixels(bench: Bench, count: int) -> Tensor:
    """uint8 [count, 3, H, W] on the CPU, as jobs make them."""
    transform = ImageTransform(bench.collection.config("pixels").image)
    images = [transform(picture(seed, bench.collection.side)) for seed in range(min(count, 64))]
    stacked = torch.stack([images[number % len(images)] for number in range(count)])
    return stacked.contiguous(memory_format=torch.channels_last)


def _machine(bench: Bench) -> AbstractContextManager[Machine]:
    config: Config = bench.collection.config("machine")
    world = current_world()
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenize.layout, str(world.device))
    return this_machine(config, tokenizer, world)


def _tokenizer(bench: Bench, device: torch.device | str, precision: Precision) -> NetworkTokenizer:
    tokenizer = load_tokenizer(bench.collection.tokenizer, "raster", str(device), precision)
    assert isinstance(tokenizer, NetworkTokenizer)
    with contextlib.suppress(TokenizerError):  # jobs go on with torch's, too
        tokenizer.use_fast_search(bench.collection.batch, (bench.collection.side, bench.collection.side))
    return tokenizer


def _tokens(tokenizer: NetworkTokenizer, img_B3HW: Tensor) -> Tensor:
    """int64 [B, L] on the CPU."""
    with torch.inference_mode():
        pixels = normalize_pixels(img_B3HW.to(tokenizer.device), tokenizer.normalization)
        return torch.cat([block.cpu() for block in tokenizer.encode(pixels)], dim=1)


def _excess(bench: Bench, img_B3HW: Tensor, found_BL: Tensor) -> float:
    """By how much a chosen code is farther than the nearest one, at most; in float64, and of the squared lengths."""
    tokenizer = _tokenizer(bench, "cpu", "fp32")
    model = tokenizer.model
    assert isinstance(model, SimpleVQVAE)
    model.double()
    with torch.inference_mode():
        normalized = normalize_pixels(img_B3HW, tokenizer.normalization).double()
        worst = 0.0
        for image, chosen_L in zip(normalized, found_BL, strict=True):
            z_NC = model.encode(image[None]).flatten(2)[0].T
            codes_KC = model.quantize.get_codebook().double()
            distances_NK = torch.cdist(z_NC, codes_KC).square()
            excess_N = distances_NK.gather(1, chosen_L[:, None])[:, 0] - distances_NK.min(dim=1).values
            lengths_N = z_NC.square().sum(dim=1) + codes_KC[chosen_L].square().sum(dim=1)
            worst = max(worst, (excess_N / lengths_N).max().item())
    return worst
