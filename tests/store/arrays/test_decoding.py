"""A chunk that was forged, checksums and all, ends no process and gives no foreign bytes."""

import random
import struct
from collections.abc import Iterator

import numcodecs
import numpy as np
import pytest
from support import in_a_fork

from pipeline.store.arrays.decoding import decode
from pipeline.store.arrays.stored_array import Compressor
from pipeline.store.types import Array

pytest_plugins = ["fixtures_store"]

SIZE = 400_000
"""Bytes of a chunk: two blocks of Blosc."""
MARK = 0xA5
"""What fresh memory holds here, in place of what others left in it."""


def contents(compressible: bool) -> Array:
    """uint16, with no byte of MARK."""
    values = np.random.default_rng(0).integers(0, 100, SIZE // 2)
    return (values if not compressible else values % 3).astype(np.uint16)


BLOSC = numcodecs.Blosc(cname="lz4", shuffle=numcodecs.Blosc.BITSHUFFLE)


def encoded(compressor: Compressor, compressible: bool = True) -> bytes:
    codec = BLOSC if compressor == "blosc" else numcodecs.Zstd(level=3)
    return bytes(codec.encode(contents(compressible)))


def marked(size: int) -> Array:
    return np.full(size, MARK, np.uint8)


def decoded(compressor: Compressor, data: bytes, size: int = SIZE) -> Array | None:
    """The chunk, None where it is refused."""
    try:
        return decode(compressor, np.frombuffer(data, np.uint8), size, 2, marked)
    except (ValueError, RuntimeError):
        return None


@pytest.mark.parametrize("compressor", ["blosc", "zstd"])
@pytest.mark.parametrize("compressible", [True, False])
@pytest.mark.parametrize("size", [2, 200, SIZE])
def test_what_was_encoded_is_decoded(compressor: Compressor, compressible: bool, size: int) -> None:
    values = contents(compressible)[: size // 2]
    codec = BLOSC if compressor == "blosc" else numcodecs.Zstd(level=3)
    for array in (values, np.frombuffer(random.Random(1).randbytes(size), np.uint16)):  # the second is a plain copy
        read = decoded(compressor, bytes(codec.encode(array)), size)
        assert read is not None
        assert np.array_equal(read.view(np.uint16), array)


def forged(data: bytes, seed: int) -> bytes:
    """A chunk with something else in its header, its offsets of blocks, or its lengths of streams."""
    draw, forged = random.Random(seed), bytearray(data)
    extremes = [0, 1, 2, 15, 16, 17, 1 << 15, SIZE - 1, SIZE + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, len(data)]
    for _ in range(draw.choice([1, 1, 2])):
        match draw.randrange(4):
            case 0:
                forged[draw.randrange(min(24, len(forged)))] = draw.randrange(256)
            case 1:
                struct.pack_into("<I", forged, 4 * draw.randrange(1, 8), draw.choice(extremes))
            case 2:
                struct.pack_into("<I", forged, draw.randrange(4, len(forged) - 4), draw.choice(extremes))
            case 3:
                del forged[draw.randrange(1, len(forged)) :]
                forged += bytes(max(40 - len(forged), 0))
    return bytes(forged)


def read_forged(compressor: Compressor, seeds: range) -> list[int]:
    """Seeds whose chunk gave bytes of fresh memory."""
    bodies = [encoded(compressor, compressible) for compressible in (True, False)]

    def foreign() -> Iterator[int]:
        for seed in seeds:
            read = decoded(compressor, forged(bodies[seed % 2], seed))
            # A forger chooses the contents, but memory that was never written shows the mark in long stretches.
            if read is not None and (read.size != SIZE or (read == MARK).sum() > 1000):
                yield seed

    return list(foreign())


@pytest.mark.parametrize("compressor", ["blosc", "zstd"])
def test_forged_chunks_end_no_process_and_show_no_memory(compressor: Compressor) -> None:
    assert in_a_fork(read_forged, compressor, range(1500)) == (0, [[]])


@pytest.mark.parametrize(
    ("place", "value"),
    [(4, SIZE - 2), (4, 0), (4, 1 << 31), (8, 0), (8, 1 << 31), (12, 1 << 31), (16, 1 << 31), (16, 0), (20, 1 << 30)],
)
def test_what_blosc_s_header_says_is_compared_first(place: int, value: int) -> None:
    data = bytearray(encoded("blosc"))
    struct.pack_into("<I", data, place, value)
    with pytest.raises(ValueError, match=r"its header says|a block lies outside it"):
        decode("blosc", np.frombuffer(bytes(data), np.uint8), SIZE, 2, marked)
