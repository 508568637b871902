"""`TokenSequences`: pairs for torchtitan, on any number of ranks."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_store import store_of_rows

from pipeline.loader.trainers.torchtitan import TokenSequences
from pipeline.records import Geometry
from pipeline.store import TokenStore

ROWS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """120 rows of 2 x 4 tokens, no two of which are alike."""
    geometry = Geometry(image_size=(8, 16), grid=(2, 4), layout="quadrants", block_lengths=(2,) * 4, decodable=True)
    path = store_of_rows(tmp_path_factory.mktemp("titan") / "store", [70, 50], vocab_size=5000, geometry=geometry)
    return TokenStore(path)


def made(store: TokenStore, rank: int = 0, world: int = 1, size: int = 10, **options: Any) -> TokenSequences:
    return TokenSequences(store, rank, world, size, seed=3, bos=5000, label_offset=6000, num_labels=6, **options)


def inputs(pairs: Any) -> list[list[int]]:
    return [row for given, _ in pairs for row in given["input"].tolist()]


def test_labels_are_the_inputs_one_further(store: TokenStore) -> None:
    sequences = made(store)
    (given, labels) = next(iter(sequences))
    assert given["input"].shape == labels.shape == (10, len(sequences.format) - 1)
    assert torch.equal(given["input"][:, 1:], labels[:, :-1])
    whole = torch.cat([given["input"], labels[:, -1:]], dim=1)
    assert set(whole[:, 0].tolist()) == {5000}
    grids = {tuple(grid) for grid in store.read(slice(None)).grid.flatten(1).tolist()}
    assert {tuple(grid) for grid in sequences.format.grid(whole).flatten(1).tolist()} <= grids


def test_another_number_of_ranks_goes_on_with_the_rest(store: TokenStore) -> None:
    """Every row of the first two epochs comes twice, whatever becomes of the ranks on the way."""
    seen: Counter[tuple[int, ...]] = Counter()
    state: dict[str, Any] = {}
    for world, size, steps in ((2, 10, 4), (3, 5, 2), (1, 10, 13)):
        ranks = [made(store, rank, world, size) for rank in range(world)]
        for sequences in ranks:
            sequences.load_state_dict(state)
            seen.update(map(tuple, inputs(islice(sequences, steps))))
        states = [json.loads(json.dumps(sequences.state_dict())) for sequences in ranks]
        assert all(each == states[0] for each in states)
        state = states[0]
    assert (len(seen), set(seen.values())) == (ROWS, {2})


def test_it_ends_where_it_shall_and_never_waits_for_a_batch_that_does_not_come(store: TokenStore) -> None:
    assert len(inputs(made(store, infinite=False))) == ROWS
    with (
        pytest.warns(UserWarning, match="fill no batch"),
        pytest.raises(ValueError, match="has no batch in an epoch, and would never give one"),
    ):
        made(store, size=121)
    assert Path(store.root).exists()
