"""vqtok's parts by themselves: decoding without encoding, encoding without decoding. Calling one gives images/s."""

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.models.batch_encoder import BatchEncoder, Encoding
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.process.threads import one_thread
from pipeline.source.batches import ImageBatch, image_batches
from pipeline.source.find import find_source_shards
from pipeline.source.images.scaling import Scaling
from pipeline.source.images.transform import ImageTransform
from pipeline.source.images.vision import ImageReadMode, cpu_jpeg
from pipeline.source.reading import open_shard
from pipeline.source.selection import Selection
from tokenizing.job import Incomplete
from tokenizing.photos import Photos

_IN_FLIGHT = 2


class Decode:
    """Tars to batches of pixels, as a job has them made for its encoder."""

    def __init__(self, config: Config, photos: Photos, cores: int) -> None:
        self._config = config
        self._photos = photos
        self._cores = cores

    def __call__(self) -> float:
        started = time.perf_counter()
        rows = sum(len(batch.rows) for batch in self.batches())
        if rows != len(self._photos):
            raise Incomplete(f"{rows:,} of {len(self._photos):,} photographs decoded")
        return rows / (time.perf_counter() - started)

    def batches(self) -> Iterator[ImageBatch]:
        """All batches of all tars."""
        source, batch_size = self._config.source, self._config.tokenize.batch_size
        selection, transform = Selection(source), ImageTransform(self._config.image)
        with ThreadPoolExecutor(self._cores, "decode", one_thread) as decoders:
            for shard in find_source_shards(source):
                samples = open_shard(shard, source)
                yield from image_batches(samples, selection, transform, batch_size, decoders, self._cores)


class DecodeLimit:
    """The operators that cannot be done without, on files in memory, in as many threads."""

    def __init__(self, photos: Photos, side: int, cores: int) -> None:
        self._files = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in photos.files]
        self._side = side
        self._cores = cores

    def __call__(self) -> float:
        with ThreadPoolExecutor(self._cores, "limit", one_thread) as pool:
            list(pool.map(self._decode, [[]] * self._cores))  # starts the threads
            started = time.perf_counter()
            list(pool.map(self._decode, [self._files[core :: self._cores] for core in range(self._cores)]))
            return len(self._files) / (time.perf_counter() - started)

    def _decode(self, files: Sequence[Tensor]) -> None:
        scaling = Scaling("bicubic")
        for data in files:
            img_3HW = cpu_jpeg(data, ImageReadMode.RGB.value, True)
            _, height, width = img_3HW.shape
            scale = self._side / min(height, width)
            if scale != 1:
                scaling(img_3HW, (round(height * scale), round(width * scale)))


class Encode:
    """Pixels in memory to tokens, two batches in flight.

    Args:
        batches: uint8 [B, 3, H, W] each; they come again until `images` are encoded.
        compiles: as `tokenize.compile`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        device: torch.device,
        cores: int,
        batches: Sequence[Tensor],
        images: int,
        compiles: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self._cores = cores
        self._batches = batches
        self._compiles = compiles
        self._count = max(1, images // len(batches[0]))

    def __call__(self) -> float:
        with BatchEncoder(self._tokenizer, self._device, self._cores, self._compiles) as encoder:
            started = time.perf_counter()
            in_flight: deque[Encoding] = deque()
            for batch in itertools.islice(itertools.cycle(self._batches), self._count):
                in_flight.append(encoder.submit(batch, len(batch)))
                if len(in_flight) > _IN_FLIGHT:
                    in_flight.popleft().result()
            for pending in in_flight:
                pending.result()
            return self._count * len(batch) / (time.perf_counter() - started)
