"""Compressed tars hold the samples that they hold decompressed, or say that they are damaged."""

import bz2
import gzip
import hashlib
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from support import tar_bytes

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.files import LocalFiles
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.find import find_source_shards
from pipeline.source.reading import Opener, index_shard, open_shard
from pipeline.source.sample import Sample

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TAR = tar_bytes([(f"{i}.{name}", bytes([i]) * 700) for i in range(9) for name in ("jpg", "cls")])


def frames(data: bytes) -> bytes:
    """What pzstd writes: frames, and before them some that are to be skipped."""
    half = len(data) // 2
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"
    return skipped + zstd.compress(data[:half]) + skipped + zstd.compress(data[half:])


CHECKED = {zstd.CompressionParameter.checksum_flag: 1}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "gzip of two members": lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
    "zstd": lambda data: zstd.compress(data, options=CHECKED),
    "zstd frames": frames,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
every_compression = pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)


def samples_of(folder: Path, data: bytes, **options: bool) -> list[Sample]:
    (folder / "x.tar").write_bytes(data)
    return list(TarReader(LocalFiles(folder), "x.tar", **options))


@every_compression
def test_the_samples_are_those_of_the_tar_and_the_digest_is_that_of_the_file(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    data = compress(TAR)
    (tmp_path / "x.tar").write_bytes(data)  # no name tells
    reader = TarReader(LocalFiles(tmp_path), "x.tar", version="7")
    plain = samples_of(tmp_path, TAR)
    (tmp_path / "x.tar").write_bytes(data)
    assert list(reader) == plain
    (source,) = reader.sources()
    assert (source.bytes, source.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert source.head == hashlib.sha256(data[: 64 << 10]).hexdigest()
    assert samples_of(tmp_path, data, digests=False) == plain


@every_compression
def test_cut_off_anywhere_it_is_an_error(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(TAR)
    for size in [*range(1, 24), *range(24, len(data), 7)]:
        with pytest.raises(SourceError, match=r"x\.tar: .*(cut off|not a tar|is empty)"):
            samples_of(tmp_path, data[:size])


@every_compression
def test_other_data_behind_it_is_an_error(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    for more in (b"and more", compress(TAR)):
        with pytest.raises(SourceError, match=r"damaged or cut off|more data follows"):
            samples_of(tmp_path, compress(TAR) + more)


@pytest.mark.parametrize("compress", [COMPRESSIONS[name] for name in ("gzip", "zstd", "bzip2", "xz")])
def test_a_flipped_bit_changes_no_sample_in_silence(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data, plain = compress(TAR), samples_of(tmp_path, TAR)
    noticed = 0
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 16
        try:
            assert samples_of(tmp_path, bytes(damaged)) == plain  # the time of writing, and the like
        except SourceError:
            noticed += 1
    assert noticed > len(data) / 3 * 0.8


@pytest.mark.parametrize("compress", [COMPRESSIONS["gzip"], COMPRESSIONS["zstd"]])
def test_memory_does_not_grow_with_the_tar(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "x.tar").write_bytes(compress(tar_bytes([(f"{i}.jpg", bytes(1 << 20)) for i in range(48)])))
    reader = TarReader(LocalFiles(tmp_path), "x.tar")
    tracemalloc.start()
    try:
        assert sum(len(sample.members["jpg"] or b"") for sample in reader) == 48 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_training_reads_it_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(gzip.compress(TAR))
    source = SourceConfig(shards=(f"{tmp_path}/x.tgz",))
    (shard,) = find_source_shards(source)
    index = index_shard(shard, source)
    assert (index.samples, index.starts) == (9, None)
    assert list(Opener(source).read_on(shard, index, 4)) == list(open_shard(shard, source))[4:]


def test_the_output_of_a_command_may_be_compressed_too(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zstd.compress(TAR))
    source = SourceConfig(shards=(f"pipe:cat {tmp_path}/x",), allow_pipe=True)
    (shard,) = find_source_shards(source)
    assert len(list(open_shard(shard, source))) == 9
