"""Stores that can be mixed, and some that cannot; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

from pathlib import Path

import numpy as np
import pytest
from fixtures_store import store_of_rows

from pipeline.loader.mixtures import merging
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays
from pipeline.store.arrays.codebook import table_digest
from pipeline.store.schema.birth import CodebookRecord

WEIGHTS = [0.6, 0.3, 0.1]


def table_of(codes: int, dimensions: int = 2) -> np.ndarray:
    return np.random.default_rng([codes, dimensions]).normal(size=(codes, dimensions)).astype(np.float32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 50 rows: the usual ones are far longer than what a test reads of them."""
    monkeypatch.setattr(merging, "BLOCK_ROWS", 50)


@pytest.fixture(scope="module")
def mixable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stores of one vocabulary, and one each of another, of other blocks, of longer embeddings, of no rows."""
    folder = tmp_path_factory.mktemp("mixture")
    own, wide = table_of(16), table_of(16, 3)
    wide_record = CodebookRecord(kind="table", vocab_size=16, embedding_dim=3, sha256=table_digest(wide))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        store_of_rows(folder / "a", [100, 0, 7, 1, 92], own)
        store_of_rows(folder / "b", [53], own)
        store_of_rows(folder / "c", [7], own)
        store_of_rows(folder / "other", [40], table_of(300), vocab_size=300)
        store_of_rows(folder / "blocks", [10], own, block_lengths=(4, 4))
        store_of_rows(folder / "wide", [10], wide, codebook=wide_record)
        store_of_rows(folder / "empty", [0], own)
    return folder


@pytest.fixture(scope="module")
def stores(mixable: Path) -> list[TokenStore]:
    """200, 53 and 7 rows of one vocabulary, in chunks of at most 16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        return [TokenStore(mixable / name) for name in "abc"]
