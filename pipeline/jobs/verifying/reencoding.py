"""Encodes a share of a store's rows again: equal on the same kind of hardware, elsewhere in fair agreement."""

import contextlib
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import numpy as np
from tqdm import tqdm

from pipeline.config import Config
from pipeline.files import files_at
from pipeline.jobs.originals import batches_of_rows
from pipeline.jobs.plan import source_shards_of
from pipeline.jobs.verifying.commits import Verification, percent
from pipeline.jobs.work.machine import Machine, this_machine
from pipeline.jobs.work.precision import refuse_slow_precision
from pipeline.jobs.work.tokenizer import tokenizer_of
from pipeline.records import JSON, SourceShard, canonical_json, differences
from pipeline.source.batches import ImageBatch, images_of_batch, samples_of_batch
from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.storage import Views
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import CommitRecord
from pipeline.store.schema.manifest import PartRecord
from pipeline.store.types import Array
from pipeline.world import current_world


@dataclass
class Comparison:
    """Rows encoded again beside those of the store."""

    rows: int = 0
    rows_that_differ: int = 0
    tokens: int = 0
    tokens_that_differ: int = 0

    def add(self, other: "Comparison") -> None:
        self.rows += other.rows
        self.rows_that_differ += other.rows_that_differ
        self.tokens += other.tokens
        self.tokens_that_differ += other.tokens_that_differ

    @property
    def agreement(self) -> float | None:
        """Share of the tokens that are equal."""
        return 1 - self.tokens_that_differ / self.tokens if self.tokens else None


def choose_batches(
    commits: Sequence[CommitRecord], rate: float, batch_size: int, seed: str, views: int = 1
) -> dict[str, list[range]]:
    """Rows of the batches to encode again, ascending, by part; the same ones for the same seed.

    All batches in the order of the store are cut into as many equal stretches as are to be encoded, and one is
    drawn from each: no stretch of the store is tried more than another.

    Args:
        batch_size: of the parts whose records do not say theirs.
        views: images of each row.
    """
    sizes = [samples_of_batch(_batch_size(commit, batch_size), views) for commit in commits]
    ends = list(accumulate(-(-commit.written // size) for commit, size in zip(commits, sizes, strict=True)))
    total = ends[-1] if ends else 0
    count = math.ceil(rate * total)
    draw = random.Random(seed)
    chosen: dict[str, list[range]] = {}
    for number in range(count):
        batch = draw.randrange(number * total // count, (number + 1) * total // count)
        place = bisect_right(ends, batch)
        commit, size = commits[place], sizes[place]
        start = (batch - (ends[place - 1] if place else 0)) * size
        chosen.setdefault(commit.part, []).append(range(start, min(start + size, commit.written)))
    return chosen


def refuse_slow_encoding(config: Config) -> None:
    """Raise ConfigError where this processor is slow in the precision of a configuration, as tokenizing does.

    To be asked before a full check, which may take hours. Raises TokenizerError.
    """
    if config.tokenize.precision != "fp32":
        world = current_world()
        refuse_slow_precision(config, tokenizer_of(config, world), world.device)


def encode_again(config: Config, result: Verification, rate: float, show_progress: bool = True) -> None:
    """Encode a share of the rows again, in the batches that they were in: tokens must then be equal; add to `result`.

    Rows that differ are problems where they were made in the way in which this process encodes. For those made in
    another way the rate of agreement becomes a warning. Does nothing where there are problems already.

    Args:
        rate: share of the batches, above 0, at most 1.
    """
    if result.problems:
        result.warnings.append("nothing was encoded again: see to the problems first")
        return
    with result.collecting(), _machine(config) as machine:
        total = _Reencoding(config, machine, result, rate).run(show_progress)
        result.rows_encoded_again, result.rows_that_differ = total.rows, total.rows_that_differ
        result.token_agreement = total.agreement


@contextlib.contextmanager
def _machine(config: Config) -> Iterator[Machine]:
    world = current_world()
    with this_machine(config, tokenizer_of(config, world), world) as machine:
        yield machine


class _Reencoding:
    """One pass over the source shards of the chosen batches."""

    def __init__(self, config: Config, machine: Machine, result: Verification, rate: float) -> None:
        self._config = config
        self._machine = machine
        self._result = result
        self._store = files_at(config.tokenize.store, config.tokenize.storage)
        self._birth = read_birth(self._store)
        self._shards = {shard.part: shard for shard in source_shards_of(self._store, config)}
        self._chosen = choose_batches(
            [result.commits[part] for part in sorted(self._shards)],
            rate,
            config.tokenize.batch_size,
            str(result.content_digest),
            self._birth.views or 1,
        )

    def run(self, show_progress: bool) -> Comparison:
        """Compare all chosen batches, and report what differs."""
        total = Comparison()
        made_elsewhere: dict[bytes, tuple[JSON, Comparison]] = {}
        rows = sum(len(rows) for batches in self._chosen.values() for rows in batches)
        with tqdm(total=rows, desc="encode again", unit=" rows", disable=not show_progress) as bar:
            for part in self._chosen:
                shard, commit, compared = self._shards[part], self._result.commits[part], Comparison()
                with self._result.collecting():
                    for batch in self._compare(shard, commit):
                        compared.add(batch)
                        bar.update(batch.rows)
                total.add(compared)
                if commit.execution == self._here(commit):
                    self._report(shard, compared)
                else:
                    way = canonical_json(commit.execution)
                    made_elsewhere.setdefault(way, (commit.execution, Comparison()))[1].add(compared)
        for made, compared in made_elsewhere.values():
            self._report_elsewhere(made, compared)
        return total

    def _compare(self, shard: SourceShard, commit: CommitRecord) -> Iterator[Comparison]:
        """The chosen batches of a part, one by one. Raises SourceError."""
        chosen = self._chosen[commit.part]
        part = Part(self._store, self._birth, PartRecord.of(commit, since=0))
        size = _batch_size(commit, self._config.tokenize.batch_size)
        batches = batches_of_rows(self._config, self._store, shard, commit, chosen, size, self._machine.decoders)
        for rows, batch in zip(chosen, batches, strict=True):
            again = self._machine.encode(batch.img_B3HW, size)[: batch.images].reshape(-1, *self._birth.row_shape)
            differ = again != part.tokens(slice(rows.start, rows.stop))
            rows_differ = differ.reshape(len(rows), -1).any(axis=1) | self._cut_otherwise(part, rows, batch)
            yield Comparison(len(rows), int(rows_differ.sum()), differ.size, int(np.count_nonzero(differ)))

    def _cut_otherwise(self, part: Part, rows: range, batch: ImageBatch) -> Array:
        """bool [n]: whether the views of a row are not the parts of its image that the store says."""
        if self._birth.views is None:
            return np.zeros(len(rows), bool)
        here, where = Views.of(batch.views, self._birth.views), slice(rows.start, rows.stop)
        boxes, flips = here.box != part.read("view/box", where), here.flip != part.read("view/flip", where)
        return cast("Array", boxes.any(axis=(1, 2)) | flips.any(axis=1))

    def _here(self, commit: CommitRecord) -> JSON:
        """How this process encodes: in batches of the size of each part."""
        size = _batch_size(commit, self._config.tokenize.batch_size)
        images = images_of_batch(size, self._birth.views or 1)
        at_once = self._machine.encoder.images_at_once(self._config.image.size, images)
        return {**self._machine.execution, "batch_size": size, "images_at_once": at_once}

    def _report(self, shard: SourceShard, compared: Comparison) -> None:
        if compared.rows_that_differ:
            self._result.problems.append(
                f"{shard.path}: {compared.rows_that_differ} of {compared.rows} rows differ when encoded again, though "
                "in the way in which they were made"
            )

    def _report_elsewhere(self, made: JSON, compared: Comparison) -> None:
        if compared.rows_that_differ and compared.agreement is not None:
            here = {**self._machine.execution, "batch_size": made.get("batch_size")}
            self._result.warnings.append(
                f"{compared.rows_that_differ:,} of {compared.rows:,} rows differ when encoded again, "
                f"{percent(compared.agreement)} of their tokens agree; the store's (there) were made in another way: "
                + "; ".join(differences(here, made))
            )


def _batch_size(commit: CommitRecord, otherwise: int) -> int:
    """Of the batches that a part was made in, whatever the configuration says today."""
    size = commit.execution.get("batch_size")
    return size if isinstance(size, int) and size > 0 else otherwise
