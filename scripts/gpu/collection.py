"""Images and a tokenizer to work on.

The pictures are noise of several sizes and the weights random: such tokens cost what others do.
"""

import io
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from pipeline.config import Config, load_config
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization
from pipeline.store import TokenStore

_QUALITY = 90
_DISTINCT = 64
"""Pictures that are drawn; further images are the same ones again."""


@dataclass(frozen=True)
class Collection:
    """Some tars of JPEG files, and a tokenizer."""

    folder: Path
    side: int
    images: int
    batch: int

    @property
    def pattern(self) -> str:
        """What names all tars but the held-out one."""
        return str(self.folder / "train-*.tar")

    @property
    def tokenizer(self) -> Path:
        """The folder of a tokenizer."""
        return self.folder / "tokenizer"

    def file(self, name: str, **sections: dict[str, Any]) -> Path:
        """A configuration with a store of its own; further keys by section."""
        tree: dict[str, dict[str, Any]] = {
            "source": {"shards": self.pattern, "label": None},
            "image": {"size": self.side},
            "tokenizer": {"path": str(self.tokenizer)},
            "tokenize": {"store": str(self.folder / f"{name}.store"), "layout": "raster", "batch_size": self.batch},
        }
        for section, values in sections.items():
            tree[section] = tree.get(section, {}) | values
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    def config(self, name: str, **sections: dict[str, Any]) -> Config:
        """The same, read; a store of an earlier run is deleted."""
        config = load_config(self.file(name, **sections))
        shutil.rmtree(config.tokenize.store, ignore_errors=True)
        return config

    def tokenized(self, name: str, **sections: dict[str, Any]) -> tuple[str, float]:
        """The content digest of tokenizing in this process, and images/s."""
        config = self.config(name, **sections)
        result = tokenize.run(config, allow_slow=True, show_progress=False)
        return self.digest(config), result.images / max(result.seconds, 1e-9)

    def digest(self, config: Config) -> str:
        """The content digest of a finished store. Raises ValueError where a row is missing."""
        store = TokenStore(config.tokenize.store)
        if len(store) != self.images:
            raise ValueError(f"{len(store)} rows, not {self.images}")
        return str(store.content_digest)


def make_collection(folder: Path, side: int, images: int, shards: int, batch: int, hidden: int) -> Collection:
    """Write tars with as many images in all, one of held-out images, and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [picture(seed, side) for seed in range(min(images, _DISTINCT))]
    for shard in range(shards):
        _write(folder / f"train-{shard:03}.tar", files, range(shard * images // shards, (shard + 1) * images // shards))
    _write(folder / "heldout.tar", [picture(seed, side) for seed in range(_DISTINCT, _DISTINCT + 8)], range(8))
    torch.manual_seed(0)
    model = SimpleVQVAE(1024, 64, hidden).eval()
    torch.nn.init.normal_(model.quantize.embedding.weight, std=0.05)  # about as long as its vectors
    save_tokenizer(folder / "tokenizer", model, Normalization())
    return Collection(folder, side, images, batch)


def picture(seed: int, side: int) -> bytes:
    """A JPEG file a little larger than `side`."""
    draw = np.random.default_rng(seed)
    size = side + side // 4 + seed % 7
    pixels = np.zeros((size, size, 3))
    for cells in (2, 5, 17, 61):
        noise = Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), float) / 4
    file = io.BytesIO()
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _write(path: Path, files: list[bytes], numbers: range) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in numbers:
            data = files[number % len(files)]
            info = tarfile.TarInfo(f"{number:06}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
