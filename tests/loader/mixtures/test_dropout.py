"""Labels and texts of a mixture are dropped as loaders of its stores alone would drop them, pass by pass."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fixtures_mixtures import WEIGHTS
from fixtures_store import store_of_fields
from torch.utils.data import DataLoader

from pipeline.loader import MixedBatch, MixtureLoader, TokenBatch, TokenLoader
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_mixtures"]

pytestmark = pytest.mark.usefixtures("small_blocks")

STEPS = 30
Labelled = Counter[tuple[int, int, int]]
"""Number of a store, row in it, label that it came with."""


def of_batches(batches: Any) -> Labelled:
    found: Labelled = Counter()
    for batch in batches:
        found.update(zip(batch.source.tolist(), batch.row_in_source.tolist(), batch.label.tolist(), strict=True))
    return found


def of_loaders(loaders: list[TokenLoader], passes: list[int]) -> Labelled:
    """What loaders of single stores give in so many epochs."""
    found: Labelled = Counter()
    for number, (loader, epochs) in enumerate(zip(loaders, passes, strict=True)):
        for _ in range(epochs):
            for batch in loader:
                found.update((number, *pair) for pair in zip(batch.row.tolist(), batch.label.tolist(), strict=True))
    return found


def alone(stores: list[TokenStore], **options: Any) -> list[TokenLoader]:
    return [TokenLoader(store, 9, seed=4 + number, **options) for number, store in enumerate(stores)]


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (3, 0), (1, 2)])
def test_each_pass_of_each_store_drops_its_own(stores: list[TokenStore], world_size: int, workers: int) -> None:
    """Of stores of 200, 53 and 7 rows: 600 rows are 1, 3 and 8 passes, and batches have rows of several passes."""
    options: dict[str, Any] = {"label_dropout": 0.4, "null_label": 9}
    mixtures = [
        MixtureLoader(stores, WEIGHTS, 20, seed=4, rank=rank, world_size=world_size, rows_per_epoch=600, **options)
        for rank in range(world_size)
    ]
    found: Labelled = Counter()
    for mixture in mixtures:
        found += of_batches(DataLoader(mixture, batch_size=None, num_workers=workers) if workers else mixture)
    assert found.total() == 600
    whole = [600 * weight // len(store) for weight, store in zip(WEIGHTS, stores, strict=True)]
    least, most = (of_loaders(alone(stores, **options), [int(n) + more for n in whole]) for more in (0, 2))
    assert least <= found <= most
    assert 0.3 < sum(count for (_, _, label), count in found.items() if label == 9) / 600 < 0.7


def test_loaders_drop_what_they_were_told_to(stores: list[TokenStore]) -> None:
    """Each its own labels, and a batch that is cut, moved or put together has them."""
    drops, keeps = TokenLoader(stores[0], label_dropout=1.0, null_label=7), TokenLoader(stores[1], null_label=8)
    for batch in islice(MixtureLoader([drops, keeps], [1, 1], 20), 5):
        real = batch.mixed.labels_of(batch.row).tolist()
        expected = [
            7 if source == 0 else 8 if label == -1 else label
            for source, label in zip(batch.source.tolist(), real, strict=True)
        ]
        joined = TokenBatch.concatenate([batch, batch])
        assert batch.label.tolist() == batch.to("cpu").label.tolist() == joined[20:].label.tolist() == expected
        assert batch[3:8].label.tolist() == expected[3:8]


@pytest.mark.parametrize("workers", [0, 1])
def test_each_pass_of_each_store_drops_its_own_texts(tmp_path: Path, workers: int) -> None:
    """Some 60 rows of each of two stores: three passes of one, up to a row, and one of the other."""
    captioned = [
        TokenStore(store_of_fields(tmp_path / name, [{"txt": [f"{name}{row}".encode() for row in range(rows)]}]))
        for name, rows in (("a", 20), ("b", 60))
    ]
    drops, keeps = TokenLoader(captioned[0], seed=3, text_dropout=0.5), TokenLoader(captioned[1])
    mixture = MixtureLoader([drops, keeps], [1, 1], 24, rows_per_epoch=120)
    found: list[Counter[str | None]] = [Counter(), Counter()]
    batches: Any = DataLoader(mixture, batch_size=None, num_workers=workers) if workers else mixture
    for batch in batches:
        for source, text in zip(batch.source.tolist(), batch.text(), strict=True):
            found[source][text] += 1
    passes = [Counter(text for batch in drops for text in batch.text()) for _ in range(4)]
    assert passes[0] + passes[1] <= found[0] <= passes[0] + passes[1] + passes[2] + passes[3]
    assert found[0][""] > 5
    assert "" not in found[1]


def test_a_batch_as_a_dict_says_its_stores(stores: list[TokenStore]) -> None:
    for transform in (TokenBatch.as_dict, MixedBatch.as_dict):
        given: Any = next(iter(MixtureLoader(stores, WEIGHTS, 20, transform=transform)))
        assert given.keys() == {"tokens", "label", "row", "source"}
        assert set(given["source"].tolist()) == {0, 1, 2}
