"""One source shard into its tokens. Knows nothing of who asked for it, or of other source shards."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.models.tokenizer import Tokenizer, normalize_pixels
from pipeline.overlap import prefetch
from pipeline.records import JSON, Reject, SourceShard
from pipeline.source.batches import image_batches
from pipeline.source.images import ImageTransform
from pipeline.source.memory import memory_errors
from pipeline.source.opening import Command, refuse_changed, shard_name, source_at
from pipeline.source.samples import SampleReader
from pipeline.source.selection import Selection
from pipeline.store.arrays import Array
from pipeline.store.birth import smallest_token_dtype
from pipeline.store.commits import SourceRecord, commonest_reasons
from pipeline.store.writer import EncodedShard

# Batches decoded ahead of the encoder.
_BATCHES_AHEAD = 2

Progress = Callable[[int, int], None]
"""Called with the images done and the bytes read of the source shard in work."""


@dataclass(frozen=True)
class ShardEncoder:
    """Turns source shards into tokens with one tokenizer on one device."""

    config: Config
    tokenizer: Tokenizer
    device: torch.device
    decoders: Executor
    execution: JSON

    def encode_shard(self, shard: SourceShard, progress: Progress = lambda images, bytes_read: None) -> EncodedShard:
        """Read, decode and encode one source shard.

        Raises SourceError when it cannot be read to its end as planned, or rejects more than
        `tokenize.max_reject_rate`; MemoryError or RuntimeError when the machine fails.
        """
        selection = Selection(self.config.source)
        source = source_at(shard.base)
        reader = SampleReader(source, shard.path, selection.wants, self.config.source.allow_unterminated)
        dtype = smallest_token_dtype(self.tokenizer.codebook.vocab_size)
        tokens = [np.empty((0, self.tokenizer.geometry(self.config.image.size).num_tokens), dtype)]
        keys: list[str] = []
        labels: list[int] = []
        fields: dict[str, list[bytes | None]] = {name: [] for name in self.config.source.keep}
        rejects: list[Reject] = []
        started, encode_s = time.monotonic(), 0.0
        batches = prefetch(
            image_batches(
                reader,
                selection,
                ImageTransform(self.config.image),
                self.config.tokenize.batch_size,
                self.decoders,
            ),
            _BATCHES_AHEAD,
            interrupt=source.stop if isinstance(source, Command) else lambda: None,
        )
        with contextlib.closing(batches):
            for batch in batches:
                if batch.rows:
                    encode_started = time.monotonic()
                    tokens.append(self.encode_images(batch.img_B3HW)[: len(batch.rows)].astype(dtype))
                    encode_s += time.monotonic() - encode_started
                rejects += batch.rejects
                for row in batch.rows:
                    keys.append(row.key)
                    labels.append(row.label)
                    for name, values in fields.items():
                        values.append(row.fields[name])
                progress(len(keys) + len(rejects), reader.bytes)
        refuse_changed(shard, reader.bytes)
        self._check_reject_rate(shard, rejects, len(keys))
        return EncodedShard(
            part=shard.part,
            source=SourceRecord(
                path=shard.path, bytes=reader.bytes, sha256=reader.digest, version=shard.version, head=reader.head
            ),
            tokens=np.concatenate(tokens),
            keys=keys,
            labels=labels,
            fields=fields,
            rejects=rejects,
            ignored=reader.ignored,
            execution=self.execution,
            seconds={
                "encode": round(encode_s, 3),
                "wait_for_images": round(time.monotonic() - started - encode_s, 3),
            },
        )

    def encode_images(self, img_B3HW: Tensor) -> Array:
        """Tokens int64 [B, L_total] of uint8 images, blocks concatenated in order.

        Raises MemoryError where the machine has too little.
        """
        with torch.inference_mode(), memory_errors():
            pixels = normalize_pixels(img_B3HW.to(self.device), self.tokenizer.normalization)
            tokens: Array = torch.cat(list(self.tokenizer.encode(pixels)), dim=1).cpu().numpy()
        return tokens

    def _check_reject_rate(self, shard: SourceShard, rejects: list[Reject], written: int) -> None:
        seen, limit = written + len(rejects), self.config.tokenize.max_reject_rate
        if seen and len(rejects) / seen > limit:
            raise SourceError(
                f"{shard_name(shard)}: {len(rejects)} of {seen} samples rejected, more than "
                f"tokenize.max_reject_rate = {limit}: {commonest_reasons(reject.reason for reject in rejects)}"
            )
