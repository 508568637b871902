"""Three ways to get from tars to tokens without vqtok.

Calling one gives images/s, from opening the first tar to the last file. None keeps an account of what it has done; it
is only counted here. Each has the number of threads that suits it: where other work wants the cores too, the threads of
an operation on one image wait for each other most of the time.
"""

import io
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.process.threads import cpu_threads
from pipeline.records import Normalization
from tokenizing.job import BATCH, Incomplete
from tokenizing.photos import Photos
from tokenizing.plain import plain_tokens, plain_transform

_TRIALS = 10


class Peer(ABC):
    """One way; writes its tokens into new folders in `folder`."""

    batch_size = BATCH

    def __init__(self, photos: Photos, model: SimpleVQVAE | Vqgan, side: int, folder: Path) -> None:
        self._photos = photos
        self._model = model
        self._transform = plain_transform(side, Normalization())
        self._folder = folder
        self._folder.mkdir(parents=True)
        self._side = side
        self._tokens = (side // model.downsampling) ** 2
        self._threads: int | None = None

    def __call__(self) -> float:
        if self._threads is None:
            self._threads = min(sorted({1, torch.get_num_threads()}), key=self._seconds_of_trials)
        # New each time: files are made slowly where as many have just been deleted.
        self._turn = Path(tempfile.mkdtemp(dir=self._folder))
        started = time.perf_counter()
        with cpu_threads(self._threads):
            self.tokenize()
        seconds = time.perf_counter() - started
        found = sum(np.load(file, mmap_mode="r").size for file in self._turn.glob("*.npy"))
        if found != len(self._photos) * self._tokens:
            raise Incomplete(f"{self._turn}: {found:,} tokens, not {len(self._photos):,} × {self._tokens:,}")
        return len(self._photos) / seconds

    @abstractmethod
    def tokenize(self) -> None:
        """All photographs into .npy files."""

    def close(self) -> None:  # noqa: B027
        """End worker processes; most have none."""

    def _seconds_of_trials(self, threads: int) -> float:
        """Some batches with so many threads for each operation; all of them, for the waiting comes now and then."""
        pixels_B3HW = torch.zeros(self.batch_size, 3, self._side, self._side)
        with cpu_threads(threads):
            plain_tokens(self._model, pixels_B3HW)
            started = time.perf_counter()
            for _ in range(_TRIALS):
                plain_tokens(self._model, pixels_B3HW)
            return time.perf_counter() - started

    def _save(self, name: str, tokens: Tensor) -> None:
        np.save(self._turn / f"{name}.npy", tokens.numpy())


class OneByOne(Peer):
    """One image at a time, a file for each: how published code extracts tokens for class-conditional training."""

    batch_size = 1

    def tokenize(self) -> None:
        for key, data in self._images():
            with Image.open(io.BytesIO(data)) as image:
                img_3HW = self._transform(image.convert("RGB"))
            self._save(key, plain_tokens(self._model, img_3HW[None]))

    def _images(self) -> Iterator[tuple[str, bytes]]:
        for path in self._photos.tars:
            with tarfile.open(path) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    assert stream is not None
                    yield Path(member.name).stem, stream.read()


class WebDatasetLoop(Peer):
    """Batches out of webdataset, decoded in this process, encoded one after the other; a file at the end."""

    def tokenize(self) -> None:
        self._save_all(self._batches())

    def _batches(self) -> Iterable[Any]:
        batches: Iterable[Any] = self._dataset().batched(self.batch_size)
        return batches

    def _dataset(self) -> Any:
        return (
            webdataset.WebDataset([str(tar) for tar in self._photos.tars], shardshuffle=False)
            .decode("pil")
            .to_tuple("jpg", "__key__")
            .map_tuple(self._transform, str)
        )

    def _save_all(self, batches: Iterable[Any]) -> None:
        self._save("tokens", torch.cat([plain_tokens(self._model, images) for images, _ in batches]))


class DataLoaderLoop(WebDatasetLoop):
    """The same out of a DataLoader with two workers, which stay from one call to the next."""

    workers = 2

    def __init__(self, photos: Photos, model: SimpleVQVAE | Vqgan, side: int, folder: Path) -> None:
        super().__init__(photos, model, side, folder)
        self._loader = DataLoader(
            self._dataset(), batch_size=self.batch_size, num_workers=self.workers, persistent_workers=True
        )

    def _batches(self) -> Iterable[Any]:
        return self._loader

    def close(self) -> None:
        del self._loader
