"""Code histograms as text."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CorruptStore
from pipeline.store.schema.counts import pack_counts, unpack_counts


@given(st.lists(st.integers(0, 2**62), max_size=100))
def test_counts_survive(counts: list[int]) -> None:
    assert unpack_counts(pack_counts(np.array(counts, np.int64)), len(counts), "file").tolist() == counts


def test_the_text_is_what_the_docstring_says() -> None:
    assert zlib.decompress(base64.b64decode(pack_counts(np.array([1, 258])))) == bytes([1, *[0] * 7, 2, 1, *[0] * 6])
    assert len(pack_counts(np.zeros(65536, np.int64))) < 1000


@pytest.mark.parametrize(
    "text",
    ["", "no base64", "AAAA", "Zahl\xe4", base64.b64encode(zlib.compress(b"123")).decode(), pack_counts(np.arange(3))],
)
def test_anything_but_the_counts_of_the_codes_is_refused(text: str) -> None:
    with pytest.raises(CorruptStore, match=r"commits/p\.json: .*code counts"):
        unpack_counts(text, 4, "commits/p.json")


def test_no_more_is_unpacked_than_there_must_be() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(1 << 26), 9)).decode()
    tracemalloc.start()
    with pytest.raises(CorruptStore, match="code counts cannot be read"):
        unpack_counts(bomb, 4, "manifest.json")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * len(bomb)
