"""One tokenizer on an accelerator: end to end, its parts, and how much of the device they use."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.networks.search import Search, nearest_codes
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.protocol import FastSearch, Precision, Tokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization
from pipeline.world import available_cores
from tokenizing.accelerators import Peak
from tokenizing.job import Job, LaunchedJob, write_config
from tokenizing.parts import Decode, Encode
from tokenizing.photos import Photos
from tokenizing.stages import draw, milliseconds_by_stage
from tokenizing.turns import Contestant, best_of
from tokenizing.vqgan import save_vqgan

DECODERS = ("torchvision", "nvjpeg")
DECODE, ENCODE, COMPILED = "decoding alone", "encoding alone", "encoding alone, compiled"
LAUNCHED = "vqtok, --processes auto"
_PROFILED = 5
_SEARCHES = 20

Model = SimpleVQVAE | Vqgan


def decoder_name(decoder: str) -> str:
    """What the whole job with this decoder is called in results."""
    return f"vqtok, {decoder}"


@dataclass(frozen=True)
class Setting:
    """Where and how everything is measured."""

    device: torch.device
    precision: Precision
    side: int
    batch_size: int
    rounds: int
    compiles: bool
    out: Path
    """Folder for traces and pictures."""


@dataclass(frozen=True)
class GpuResult:
    """What was found for one tokenizer."""

    title: str
    parameters: int
    """Of the encoder."""
    flops: int
    """Of encoding one image, without the search."""
    rates: dict[str, float]
    """Images/s, by contestant."""
    stages: dict[str, float]
    """Milliseconds of a batch."""
    search_seconds: float
    torch_search_seconds: float
    """Of a batch."""
    search_work: "SearchWork"
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a decoder is missing."""

    @property
    def bound(self) -> float:
        """Images/s that decoding on the host beside encoding on the device allows."""
        return min(self.rates[DECODE], self.rates[ENCODE])

    def utilisation(self, name: str, peak_tflops: float) -> float:
        """Share of the device's peak that the encoder's FLOPs make."""
        return self.rates[name] * self.flops / (peak_tflops * 1e12)


@dataclass(frozen=True)
class SearchWork:
    """The search of one batch."""

    vectors: int
    codes: int
    length: int

    def least_seconds(self, peak: Peak) -> float:
        """Its products, or reading vectors and codes and writing indices once: what takes longer."""
        flops = 2 * self.vectors * self.codes * self.length
        moved = 4 * self.length * (self.vectors + self.codes) + 8 * self.vectors
        return max(flops / (peak.search_tflops * 1e12), moved / (peak.gb_per_second * 1e9))


def measure_model(
    title: str, model: Model, photos: Photos, folder: Path, setting: Setting, say: Callable[[str], None]
) -> GpuResult:
    """Measure one tokenizer over some photographs.

    Raises Incomplete when a job leaves one out.
    """
    say(title)
    tokenizer_folder = folder / f"tokenizer-{type(model).__name__}"
    if isinstance(model, Vqgan):
        save_vqgan(tokenizer_folder, model)
    else:
        save_tokenizer(tokenizer_folder, model, Normalization())
    jobs, skipped = _jobs(tokenizer_folder, photos, folder, setting)
    decode = Decode(jobs["torchvision"].config, photos, available_cores())
    batches = [batch.img_B3HW for batch, _ in zip(decode.batches(), range(_PROFILED), strict=False)]
    contestants: dict[str, Contestant] = {decoder_name(decoder): job for decoder, job in jobs.items()}
    contestants[LAUNCHED] = LaunchedJob(jobs["torchvision"].config_file, photos)
    contestants |= {DECODE: decode, ENCODE: _encode(_load(tokenizer_folder, setting), batches, photos, setting)}
    if setting.compiles:
        tokenizer = _load(tokenizer_folder, setting)
        contestants[COMPILED] = _encode(tokenizer, batches, photos, setting, compiles=True)
    rates = best_of(contestants, setting.rounds, say)

    profiled = _load(tokenizer_folder, setting)
    quantize = profiled.model.quantize  # type: ignore[attr-defined]
    name = type(model).__name__
    stages = milliseconds_by_stage(
        profiled, quantize, setting.device, batches * 2, setting.out / f"{name}.trace.json.gz"
    )
    draw(stages, f"{title}: a batch of {setting.batch_size} images of {setting.side} px", setting.out / f"{name}.png")
    work = SearchWork(setting.batch_size * (setting.side // model.downsampling) ** 2, *quantize.get_codebook().shape)
    return GpuResult(
        title=title,
        parameters=sum(weight.numel() for weight in model.encoder.parameters()),
        flops=encoder_flops(model.encoder, setting.side),
        rates=rates,
        stages=stages,
        search_seconds=_seconds_of_search(quantize.nearest, quantize, work, setting.device),
        torch_search_seconds=_seconds_of_search(nearest_codes, quantize, work, setting.device),
        search_work=work,
        skipped=skipped,
    )


def encoder_flops(encoder: nn.Module, side: int) -> int:
    """Multiplications and additions of encoding one image, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(encoder).to("meta")(torch.empty(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops())


def _jobs(tokenizer: Path, photos: Photos, folder: Path, setting: Setting) -> tuple[dict[str, Job], dict[str, str]]:
    """A job with each decoder, and why some cannot be had."""
    jobs, skipped = {}, {}
    for decoder in DECODERS:
        file = write_config(
            folder / f"{tokenizer.name}-{decoder}.yaml",
            photos.pattern,
            tokenizer,
            setting.side,
            decoder=decoder,
            batch_size=setting.batch_size,
            precision=setting.precision,
        )
        try:
            job = Job(file, photos)
            job()
            jobs[decoder] = job
        except ConfigError as error:
            skipped[decoder] = str(error).replace(str(file), "").strip(" :")
    return jobs, skipped


def _load(folder: Path, setting: Setting) -> Tokenizer:
    """As a job has it, with the search that it uses."""
    tokenizer = load_tokenizer(folder, "raster", setting.device, setting.precision)
    if isinstance(tokenizer, FastSearch):
        with contextlib.suppress(TokenizerError):  # the job says so
            tokenizer.use_fast_search(setting.batch_size, (setting.side, setting.side))
    return tokenizer


def _encode(
    tokenizer: Tokenizer, batches: Sequence[Tensor], photos: Photos, setting: Setting, compiles: bool = False
) -> Encode:
    return Encode(tokenizer, setting.device, available_cores(), batches, len(photos), compiles)


def _seconds_of_search(search: Search, quantize: VectorQuantizer, work: SearchWork, device: torch.device) -> float:
    """The fastest of some searches of random vectors."""
    codes_KC = quantize.get_codebook().detach()
    z_NC = torch.randn(work.vectors, work.length, device=device)
    search(z_NC, codes_KC)
    best = math.inf
    for _ in range(_SEARCHES):
        best = min(best, _seconds_on_device(lambda: search(z_NC, codes_KC), device))
    return best


def _seconds_on_device(call: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
