"""vqtok's own store and loader, with either codec, and what the parts of a batch cost that are made when asked for."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from loaders.peer import Fetch, Peer, Request
from loaders.rows import VOCAB, Array
from pipeline.files import LocalFiles
from pipeline.loader import TokenDataset, TokenLoader
from pipeline.records import Geometry, SourceRecord
from pipeline.store import TokenStore
from pipeline.store.schema.birth import DIGESTS, Birth, CodebookRecord, create_or_compare
from pipeline.store.schema.commits import committed_parts, read_commits
from pipeline.store.schema.manifest import write_manifest
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.hierarchy import prepare_hierarchy
from pipeline.store.writing.writer import EncodedShard, commit_part

PART_ROWS = 8192


class Vqtok(Peer):
    """TokenLoader, one epoch after the other."""

    codec: Literal["lz4", "raw"] = "lz4"

    def write(self, rows: Array, folder: Path) -> None:
        birth = begin_store(folder, rows.shape[1], self.codec)
        for part, first in enumerate(range(0, len(rows), PART_ROWS)):
            commit_rows(folder, birth, part, np.asarray(rows[first : first + PART_ROWS]))
        finish_store(folder, birth)

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        loader = TokenLoader(TokenStore(folder), shuffle=shuffle)
        return _Epochs(loader, workers) if workers else loader

    def fetch(self, folder: Path) -> Fetch:
        store = TokenStore(folder)
        many = TokenDataset(store).__getitems__

        def fetch(request: Request) -> Any:
            return store[request] if isinstance(request, int) else many(request)

        return fetch

    def tokens(self, batch: Any) -> Sequence[Tensor | Array]:
        if isinstance(batch, list):  # of samples
            return [np.stack([np.concatenate(self.tokens(sample)) for sample in batch])]
        for name in ("stored", "tokens"):
            if hasattr(batch, name):
                return [getattr(batch, name)]
        return _indices(batch)


class VqtokRaw(Vqtok):
    """Uncompressed."""

    codec = "raw"


class VqtokIndices(Vqtok):
    """The loop takes the blocks as int64."""

    def tokens(self, batch: Any) -> Sequence[Tensor | Array]:
        return _indices(batch)


class VqtokKeys(Vqtok):
    """The loop takes the keys besides the tokens."""

    def tokens(self, batch: Any) -> Sequence[Tensor | Array]:
        assert batch.key[0]
        return super().tokens(batch)


def begin_store(folder: Path, tokens: int, codec: Literal["lz4", "raw"] = "lz4") -> Birth:
    """A store of nobody's tokens, in four blocks as the layout `quadrants` has them."""
    geometry = Geometry(
        image_size=(4, 4 * tokens),
        grid=(1, tokens),
        layout="invented",
        block_lengths=(tokens - 3 * (tokens // 4), *[tokens // 4] * 3),
        decodable=True,
    )
    birth = Birth(
        features=(DIGESTS,),
        identity={"tokenizer": {"weights": "none"}, "layout": "invented"},
        geometry=geometry,
        codebook=CodebookRecord(kind="implicit", vocab_size=VOCAB, embedding_dim=2),
        var_input="lookup",
        token_dtype="uint16",
        fields=(),
        codec=codec,
    )
    files = LocalFiles(folder)
    create_or_compare(files, birth)
    prepare_hierarchy(files, birth, None)
    return birth


def commit_rows(folder: Path, birth: Birth, part: int, tokens: Array) -> None:
    """Commit one part."""
    shard = EncodedShard(
        part=f"part-{part:06d}",
        sources=(SourceRecord(path=f"part-{part:06d}.tar", bytes=1, sha256="0" * 64),),
        tokens=tokens,
        keys=[f"{part:06d}-{row:06d}" for row in range(len(tokens))],
        labels=[row % 1000 for row in range(len(tokens))],
        fields={},
        rejects=[],
        ignored=[],
        execution={"precision": "fp32"},
        seconds={},
    )
    commit_part(LocalFiles(folder), birth, shard)


def finish_store(folder: Path, birth: Birth) -> None:
    """Write the manifest of all that is committed."""
    files = LocalFiles(folder)
    parts = sorted(committed_parts(files))
    manifest = make_manifest(read_commits(files, parts), parts, birth.codebook.vocab_size, generation=1)
    write_manifest(files, birth, manifest)


class _Epochs:
    """One epoch of the loader after the other, by worker processes that live on and are told which one it is."""

    def __init__(self, loader: TokenLoader, workers: int) -> None:
        self._loader = loader
        self._batches = DataLoader(loader, batch_size=None, num_workers=workers, persistent_workers=True)
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        self._loader.set_epoch(self._epoch)
        self._epoch += 1
        return iter(self._batches)


def _indices(batch: Any) -> Sequence[Tensor | Array]:
    """int64 blocks of a batch, or of a sample."""
    found: Sequence[Tensor] = batch.idx_Bl if hasattr(batch, "idx_Bl") else batch.idx_l
    return found
