"""Source shards into tokens: in order, and at work on several at their borders."""

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import COLLECTION, Job, make_job
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.jobs.work.encoding import ShardEncoder, shard_encoder
from pipeline.jobs.work.timing import Stages
from pipeline.models.pretrained import load_tokenizer
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.store.writing.writer import EncodedShard
from pipeline.world import World, current_world

pytest_plugins = ["fixtures_store"]


@contextlib.contextmanager
def encoder_of(config: Config, world: World | None = None) -> Iterator[ShardEncoder]:
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu", config.tokenize.precision)
    with shard_encoder(config, tokenizer, world or current_world()) as encoder:
        yield encoder


def test_each_source_shard_comes_out_in_order_with_what_its_stages_did(job: Job) -> None:
    config = job.config()
    shards = find_source_shards(config.source)
    with encoder_of(config) as encoder:
        outcomes = list(encoder.encode_shards(shards))
    assert [shard for shard, _ in outcomes] == shards
    for shard, encoded in outcomes:
        assert isinstance(encoded, EncodedShard)
        samples = len(COLLECTION[shard.path])
        assert len(encoded.keys) + len(encoded.rejects) == len(encoded.tokens) + len(encoded.rejects) == samples
        assert encoded.counts["read"] == encoded.counts["decode"] == samples
        assert encoded.counts["encode"] == len(encoded.keys)
        assert encoded.threads.keys() == {"read", "decode", "encode", "write", "cores"}
        assert encoded.seconds["wall"] >= 0
        if encoded.keys:
            assert min(encoded.seconds[stage] for stage in ("read", "decode", "encode")) > 0


def test_the_next_source_shard_is_read_before_this_one_is_encoded(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding waits for it: without overlap this would not end."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=20")
    asked_for_next = threading.Event()

    def shards() -> Iterator[SourceShard]:
        for number, shard in enumerate(find_source_shards(config.source)):
            if number == 1:
                asked_for_next.set()
            yield shard

    with encoder_of(config) as encoder:
        encode = encoder.tokenizer.encode

        def encode_late(img_B3HW: object) -> object:
            assert asked_for_next.wait(30)
            return encode(img_B3HW)  # type: ignore[arg-type]

        monkeypatch.setattr(encoder.tokenizer, "encode", encode_late)
        outcomes = list(encoder.encode_shards(shards()))
    assert all(isinstance(encoded, EncodedShard) for _, encoded in outcomes)


def test_batches_smaller_than_the_machine_occupy_all_cores(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one piece for one thread; six threads meet, or none goes on."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=1")
    meeting = threading.Barrier(6, timeout=20)
    encoded = itertools.count()
    with encoder_of(config, dataclasses.replace(current_world(), cores=6)) as encoder:
        encode = encoder.tokenizer.encode

        def meet(pixels: Tensor) -> list[Tensor]:
            if next(encoded) < 6:
                meeting.wait()
            return encode(pixels)

        monkeypatch.setattr(encoder.tokenizer, "encode", meet)
        outcomes = list(encoder.encode_shards(find_source_shards(config.source)))
    assert all(isinstance(outcome, EncodedShard) for _, outcome in outcomes)


@pytest.mark.parametrize(("workers", "threads"), [("auto", 3), ("1", 4)])
def test_no_more_threads_than_cores_unless_asked_for(
    workers: str, threads: int, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job.config("tokenize.batch_size=2", f"tokenize.decode_workers={workers}")
    decode, decoding, encoding = Stages._decode, set[int](), set[int]()

    def tell(stages: Stages, *arguments: Any) -> object:
        decoding.add(threading.get_ident())
        return decode(stages, *arguments)

    monkeypatch.setattr(Stages, "_decode", tell)
    with encoder_of(config, dataclasses.replace(current_world(), cores=3)) as encoder:
        encode = encoder.tokenizer.encode

        def tell_and_encode(img_B3HW: Tensor) -> list[Tensor]:
            encoding.add(threading.get_ident())
            return encode(img_B3HW)

        monkeypatch.setattr(encoder.tokenizer, "encode", tell_and_encode)
        outcomes = list(encoder.encode_shards(find_source_shards(config.source)))
    assert all(isinstance(outcome, EncodedShard) for _, outcome in outcomes)
    assert encoder.threads["decode"] == (3 if workers == "auto" else 1)
    assert len(decoding | encoding) <= threads
    assert bool(decoding & encoding) == (workers == "auto")


def test_what_goes_wrong_with_one_source_shard_is_its_own(copied: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    config = make_job(tmp_path / "job", copied, tokenizer_folder).config()
    shards = find_source_shards(config.source)
    truncated = next(shard for shard in shards if shard.path == "train-0000.tar")
    tar = copied / truncated.path
    tar.write_bytes(tar.read_bytes()[:-5000])
    with encoder_of(config) as encoder:
        outcomes = dict(zip((s.path for s in shards), encoder.encode_shards(shards), strict=True))
    for path, (shard, outcome) in outcomes.items():
        assert shard.path == path
        assert isinstance(outcome, SourceError if shard == truncated else EncodedShard)


def test_an_encoder_that_fails_fails_the_source_shard_in_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches that were under way are dropped, and its rows do not come back with the next one."""
    config = job.config("tokenize.batch_size=2", "source.exclude=[more/*]")
    shards = find_source_shards(config.source)
    with encoder_of(config) as encoder:
        encode, calls = encoder.tokenizer.encode, iter(range(1000))

        def fail_once(img_B3HW: object) -> object:
            if next(calls) == 3:
                raise RuntimeError("the device is gone")
            return encode(img_B3HW)  # type: ignore[arg-type]

        monkeypatch.setattr(encoder.tokenizer, "encode", fail_once)
        (_, failed), *rest = encoder.encode_shards(shards)
    assert isinstance(failed, RuntimeError)
    for shard, encoded in rest:
        assert isinstance(encoded, EncodedShard)
        assert len(encoded.keys) + len(encoded.rejects) == len(COLLECTION[shard.path])


def test_leaving_early_ends_all_threads(job: Job) -> None:
    config = job.config("tokenize.batch_size=1")
    before = set(threading.enumerate())
    with encoder_of(config) as encoder:
        outcomes = encoder.encode_shards(find_source_shards(config.source))
        next(outcomes)
        outcomes.close()
    assert set(threading.enumerate()) == before


def test_what_the_source_shards_raise_is_raised(job: Job) -> None:
    def shards() -> Iterator[SourceShard]:
        yield from find_source_shards(job.config().source)[:1]
        raise OSError("the store is gone")

    with encoder_of(job.config()) as encoder:
        outcomes = encoder.encode_shards(shards())
        assert isinstance(next(outcomes)[1], EncodedShard)
        with pytest.raises(OSError, match="the store is gone"):
            next(outcomes)
