"""All contestants at one image size, and what their rates say together."""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import Precision
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.records import Normalization
from pipeline.store import TokenStore
from pipeline.world import available_cores
from tokenizing.agreement import Agreement, compare, compare_with_plain
from tokenizing.job import BATCH, Job, write_config
from tokenizing.parts import Decode, DecodeLimit, Encode
from tokenizing.peers import DataLoaderLoop, OneByOne, Peer, WebDatasetLoop
from tokenizing.photos import TARS, Photos, write_folder, write_parquet, write_photos
from tokenizing.processes import OneCoreProcesses
from tokenizing.roofline import Product, ProductRates, encoder_products, search_product
from tokenizing.turns import Contestant, best_of

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
PEERS: dict[str, type[Peer]] = {
    "one by one, a .npy each": OneByOne,
    "webdataset, batches": WebDatasetLoop,
    "DataLoader, 2 workers": DataLoaderLoop,
}
DECODE, DECODE_LIMIT = "decoding alone", "limit of decoding"
FOLDER, PARQUET = "vqtok, fp32, from a folder", "vqtok, fp32, from Parquet"
VIEWS = "vqtok, fp32, each image and its mirror"
FLOPS = "matrix products, FLOP/s"
_CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Enough pixels that they are not in the cache before they are encoded.
_BATCHES = 8
_COMPARED = 4
"""Batches whose tokens are compared with a plain float32 path."""


def job_name(precision: str) -> str:
    """What the whole job is called in results."""
    return f"vqtok, {precision}"


def encode_name(precision: str) -> str:
    """What encoding by itself is called in results."""
    return f"encoding alone, {precision}"


def cores_name(processes: int) -> str:
    """What jobs in processes of one core each are called in results."""
    return "1 process, 1 core" if processes == 1 else f"{processes} processes, 1 core each"


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    seconds: float
    """What a turn of vqtok takes, about; others take the same photographs, and their time."""
    rounds: int
    images: int | None = None
    """So many photographs instead."""
    limit_s: float = math.inf
    """What one image size may take in all, as long as every contestant has had a turn that counts."""


@dataclass(frozen=True)
class SideResult:
    """What was found at one image size."""

    side: int
    images: int
    tokens: int
    """Of one image."""
    rates: dict[str, float]
    """Images/s, by contestant."""
    products: dict[str, dict[Product, torch.dtype]]
    """Of encoding one image, with their dtypes, by precision."""
    plain: Agreement
    """Tokens of the float32 job beside a plain float32 path, for the first photographs."""
    bf16: Agreement
    """Tokens of the bfloat16 job beside those of the float32 job."""

    @property
    def flops(self) -> int:
        """Of encoding one image."""
        return sum(product.flops for product in self.products["fp32"])

    def bound(self, precision: str, views: int = 1) -> float:
        """Images/s of decoding once and encoding all views on the same cores, if nothing else took time."""
        return 1 / (1 / self.rates[DECODE] + views / self.rates[encode_name(precision)])


def measure_side(
    side: int,
    files: Sequence[bytes],
    tokenizer: Path,
    effort: Effort,
    processes: OneCoreProcesses,
    product_rates: ProductRates,
    say: Callable[[str], None],
) -> SideResult:
    """Give the same photographs to all contestants in turn, and compare the tokens.

    Args:
        files: JPEG files, which come again where that is not enough.
        tokenizer: folder of a `SimpleVQVAE`.
        product_rates: gets to know the rates of this size's products too.

    Raises Incomplete when one of them does not do its work.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
        images = effort.images or _images_in(effort.seconds, side, files, tokenizer, Path(name))
        say(f"{side} px, {images:,} photographs")
        bench = _Bench(side, write_photos(Path(name) / "photos", files, images), tokenizer, Path(name))
        peers = bench.peers()
        try:
            left_s = effort.limit_s - (time.monotonic() - started)
            contestants = bench.ours(product_rates) | bench.other_ways_in() | peers | bench.scaling(processes)
            rates = best_of(contestants, effort.rounds, say, left_s)
        finally:
            for peer in peers.values():
                peer.close()
        return bench.result(rates)


class _Bench:
    """What is to be measured, all over the same photographs."""

    def __init__(self, side: int, photos: Photos, tokenizer: Path, folder: Path) -> None:
        self._side = side
        self._photos = photos
        self._tokenizer = tokenizer
        self._folder = folder
        self._jobs = {precision: self._job(precision, precision) for precision in PRECISIONS}
        self._model = _plain_model(tokenizer)
        self._tokens = (side // self._model.downsampling) ** 2
        codes, length = self._model.quantize.embedding.weight.shape
        self._search = search_product(self._tokens, (codes, length))
        self._products = [*encoder_products(self._model.encoder, (side, side)), self._search]
        self._decode = Decode(self._jobs["fp32"].config, photos, available_cores())
        self._batches = list(itertools.islice(self._decode.batches(), _BATCHES))

    def ours(self, product_rates: ProductRates) -> dict[str, Contestant]:
        """vqtok, its parts and their limits."""
        cores, count, pixels = available_cores(), len(self._photos), [batch.img_B3HW for batch in self._batches]
        contestants: dict[str, Contestant] = {job_name(precision): job for precision, job in self._jobs.items()}
        contestants |= {DECODE: self._decode, DECODE_LIMIT: DecodeLimit(self._photos, self._side, cores)}
        for precision in PRECISIONS:
            tokenizer = load_tokenizer(self._tokenizer, "raster", _CPU, precision)
            contestants[encode_name(precision)] = Encode(tokenizer, _CPU, cores, pixels, count)
        return contestants | {FLOPS: partial(product_rates.measure, self._products)}

    def other_ways_in(self) -> dict[str, Contestant]:
        """The same files in other containers, and two views of each."""
        folder = write_folder(self._folder / "folder", self._photos)
        parquet = write_parquet(self._folder / "parquet", self._photos)
        return {
            FOLDER: self._job("folder", "fp32", folder),
            PARQUET: self._job("parquet", "fp32", parquet),
            VIEWS: self._job("views", "fp32", views="flip"),
        }

    def peers(self) -> dict[str, Peer]:
        """Other ways, each with a model of its own that nobody has rearranged."""
        return {
            title: peer(self._photos, _plain_model(self._tokenizer), self._side, self._folder / peer.__name__)
            for title, peer in PEERS.items()
        }

    def scaling(self, processes: OneCoreProcesses) -> dict[str, Contestant]:
        """A job in one process of one core, and in all of them."""
        job = self._job("cores", "fp32")
        return {
            cores_name(count): partial(processes.images_per_second, job, count) for count in sorted({1, len(processes)})
        }

    def result(self, rates: dict[str, float]) -> SideResult:
        """What the rates and the stores of the last turn say."""
        products = {
            precision: dict.fromkeys(self._products, dtype) | {self._search: torch.float32}
            for precision, dtype in DTYPES.items()
        }
        stored = {precision: TokenStore(job.store) for precision, job in self._jobs.items()}
        all_tokens = {precision: store.read(slice(None)).tokens.long() for precision, store in stored.items()}
        compared = [batch.img_B3HW[: len(batch.rows)] for batch in self._batches[:_COMPARED]]
        pixels_B3HW = normalize_pixels(torch.cat(compared), Normalization())
        return SideResult(
            side=self._side,
            images=len(self._photos),
            tokens=self._tokens,
            rates=rates,
            products=products,
            plain=compare_with_plain(all_tokens["fp32"][: len(pixels_B3HW)], self._model, pixels_B3HW),
            bf16=compare(all_tokens["bf16"], all_tokens["fp32"]),
        )

    def _job(self, name: str, precision: Precision, pattern: str | None = None, **options: str) -> Job:
        file = self._folder / f"{name}.yaml"
        pattern = pattern or self._photos.pattern
        write_config(file, pattern, self._tokenizer, self._side, precision=precision, **options)
        return Job(file, self._photos)


def _images_in(seconds: float, side: int, files: Sequence[bytes], tokenizer: Path, folder: Path) -> int:
    """How many photographs vqtok tokenizes in that time, in whole batches for every tar."""
    least = images = TARS * BATCH
    # Commits are most of what a few small photographs take: so the second look is at more of them.
    for look in (folder / "few", folder / "more"):
        photos = write_photos(look, files, images)
        job = Job(write_config(look.with_suffix(".yaml"), photos.pattern, tokenizer, side), photos)
        images = max(1, round(max(job() for _ in range(2)) * seconds / least)) * least
    return images


def _plain_model(folder: Path) -> SimpleVQVAE:
    """The model in a tokenizer folder as its class builds it: a tokenizer may have rearranged its weights."""
    tokenizer = load_tokenizer(folder, "raster")
    assert isinstance(tokenizer, NetworkTokenizer) and isinstance(tokenizer.model, SimpleVQVAE)
    model = SimpleVQVAE(**tokenizer.model.arguments)  # type: ignore[arg-type]
    model.load_state_dict(tokenizer.model.state_dict())
    return model.eval()
