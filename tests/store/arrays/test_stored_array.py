"""What the records of a store say of an array, and what of them is refused."""

import numpy as np
import pytest
from fixtures_store import make_birth

from pipeline.records import SourceRecord
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.stored_array import array_paths, stored_array
from pipeline.store.schema.checksums import pack_checksums
from pipeline.store.schema.manifest import PartRecord

BIRTH = make_birth(vocab_size=300, fields=["txt"])
PATHS = ["fields/txt/data", "fields/txt/offsets", "fields/txt/present", "key/data", "key/offsets", "label", "tokens"]


def record(checksums: str) -> PartRecord:
    return PartRecord(
        part="a",
        attempt="1",
        sources=(SourceRecord(path="a.tar", bytes=1, sha256="0"),),
        written=9,
        rejected=0,
        unlabelled=0,
        bytes=1,
        content_digest="0",
        chunk_crc32c=checksums,
    )


def test_checksums_stand_in_the_order_of_the_paths() -> None:
    assert array_paths(BIRTH) == PATHS
    made = record(" ".join(pack_checksums(np.arange(number, dtype=np.uint32)) for number in range(len(PATHS))))
    for number, path in enumerate(PATHS):
        crc32c = stored_array(BIRTH, made, path).crc32c
        assert crc32c is not None
        assert crc32c.tolist() == list(range(number))
    tokens = stored_array(BIRTH, made, "tokens")
    assert (tokens.rows, tokens.row_shape, tokens.dtype, tokens.compressor) == (9, (8,), np.dtype("<u2"), "blosc")
    text = stored_array(BIRTH, made, "key/data")
    assert (text.rows, text.row_shape, text.dtype, text.compressor) == (None, (), np.dtype("u1"), "zstd")


def test_views_are_among_the_arrays() -> None:
    assert array_paths(make_birth(views=2))[-2:] == ["view/box", "view/flip"]


@pytest.mark.parametrize("checksums", ["", "AAAA", " ".join(["AAAA"] * 8), " ".join(["AAA"] * 7), " ".join(["?"] * 7)])
def test_other_checksums_are_damage(checksums: str) -> None:
    with pytest.raises(Damage, match="the record of its part"):
        stored_array(BIRTH, record(checksums), "tokens")


def test_a_store_without_digests_has_none() -> None:
    assert stored_array(make_birth(features=(), fields=["txt"]), record(""), "tokens").crc32c is None
