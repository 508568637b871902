"""Rows of several stores are brought into one order, in blocks that nobody sees."""

from collections.abc import Sequence
from itertools import islice

import pytest
from fixtures_mixtures import WEIGHTS

from pipeline.loader import MixedBatch, MixtureLoader
from pipeline.loader.mixtures import merging as blocks_module
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_mixtures"]


def steps_of(loader: MixtureLoader, steps: int) -> list[MixedBatch]:
    return list(islice(loader, steps))


def rows_of(batches: Sequence[MixedBatch]) -> list[int]:
    return [row for batch in batches for row in batch.row.tolist()]


@pytest.mark.parametrize("block_rows", [7, 64, 1000])
def test_blocks_do_not_show(stores: list[TokenStore], monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    expected = rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 13), 30))
    monkeypatch.setattr(blocks_module, "BLOCK_ROWS", block_rows)
    assert rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 13), 30)) == expected
    assert rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 130), 3)) == expected
