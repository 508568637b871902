"""vqtok's own job: what `vqtok tokenize` runs, in this process, on a store that is deleted before."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.config import Config, load_config
from pipeline.jobs.status import job as status
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization
from pipeline.store import TokenStore
from tokenizing.photos import Photos

BATCH = 32


class Incomplete(Exception):
    """A contestant has not done its work, so that its speed means nothing."""


def save_random_model(folder: Path, vocab_size: int = 1024, embedding_dim: int = 64, hidden_dim: int = 128) -> Path:
    """A tokenizer folder with an untrained `SimpleVQVAE`, whose tokens cost what others do."""
    torch.manual_seed(0)
    save_tokenizer(folder, SimpleVQVAE(vocab_size, embedding_dim, hidden_dim).eval(), Normalization())
    return folder


def write_config(file: Path, pattern: str, tokenizer: Path, side: int, **options: Any) -> Path:
    """A configuration with its store beside it; `options` are keys of `tokenize`, and two of `image`."""
    image = {"size": side} | {key: options.pop(key) for key in ["decoder", "views"] if key in options}
    store = str(file.with_suffix(".store"))
    tree = {
        "source": {"shards": pattern, "label": None},
        "image": image,
        "tokenizer": {"path": str(tokenizer)},
        "tokenize": {"store": store, "layout": "raster", "batch_size": BATCH, **options},
    }
    file.write_text(yaml.safe_dump(tree))
    return file


class Job:
    """A job over some photographs. Calling it runs it and gives images/s, from the first claim to the last commit.

    Importing, loading the tokenizer and deleting the store of the call before are not in it; listing the source,
    claims, reading, commits and their fsync are.

    Raises Incomplete unless every photograph is in the store.
    """

    def __init__(self, config_file: Path, photos: Photos) -> None:
        self.config_file = config_file
        self.config: Config = load_config(config_file)
        self._photos = photos

    def __call__(self) -> float:
        self.clear()
        result = tokenize.run(self.config, allow_slow=True, show_progress=False)
        self.check()
        return result.images / result.seconds

    @property
    def store(self) -> Path:
        """Where the tokens are."""
        return Path(self.config.tokenize.store)

    def clear(self) -> None:
        """Delete the store."""
        shutil.rmtree(self.store, ignore_errors=True)

    def check(self) -> None:
        """Raise Incomplete unless every photograph is in the store."""
        rows = len(TokenStore(self.store))
        if rows != len(self._photos):
            raise Incomplete(f"{self.store}: {rows:,} rows, not {len(self._photos):,}")


class LaunchedJob(Job):
    """The same as `vqtok tokenize --processes auto`: images/s are those of `vqtok status`, of the time in which any
    process was at work. Kernels that a process compiles at its first batch are in it.

    Raises Incomplete with what the command says unless every photograph is in the store.
    """

    def __call__(self) -> float:
        self.clear()
        command = ["tokenize", "--no-progress", "--allow-slow", "--processes", "auto", "--config", self.config_file]
        done = subprocess.run([sys.executable, "-m", "pipeline", *map(str, command)], capture_output=True, text=True)
        if done.returncode:
            raise Incomplete(f"exit status {done.returncode}: {done.stderr[-2000:]}")
        self.check()
        return status.run(self.config).images_per_second or 0.0
