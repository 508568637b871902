"""`MixtureLoader`: stores in given proportions, each row once per pass of its store, from any point on."""

import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_mixtures import WEIGHTS
from fixtures_store import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from support import sampled
from torch.utils.data import DataLoader

from pipeline.errors import StoreError
from pipeline.loader import MixedBatch, MixtureLoader, TokenLoader, epoch_rows, rows_with_label
from pipeline.loader import epochs as order_module
from pipeline.loader.epoch_rows import OrderedRows
from pipeline.loader.mixtures import batching as batching_module
from pipeline.loader.mixtures import loader as mixture_module
from pipeline.store import TokenStore
from pipeline.store.arrays.located import Located

pytest_plugins = ["fixtures_mixtures"]


@pytest.fixture(autouse=True)
def small(small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 4 chunks, blocks of 50 rows, passes brought up to date every 3 steps."""
    monkeypatch.setattr(order_module, "WINDOW_CHUNKS", 4)
    monkeypatch.setattr(mixture_module, "_COUNTED_STEPS", 3)


def ranks(stores: Sequence[TokenStore], world_size: int, batch_size: int, **options: object) -> list[MixtureLoader]:
    return [
        MixtureLoader(stores, WEIGHTS, batch_size, rank=rank, world_size=world_size, **options)  # type: ignore[arg-type]
        for rank in range(world_size)
    ]


def steps_of(loader: MixtureLoader, steps: int) -> list[MixedBatch]:
    return list(islice(loader, steps))


def rows_of(batches: Sequence[MixedBatch]) -> list[int]:
    return [row for batch in batches for row in batch.row.tolist()]


def check_passes(seen: list[int], stores: Sequence[TokenStore]) -> None:
    """Of each store, all rows have come equally often, or some of them once more."""
    counts = Counter(seen)
    start = 0
    for store in stores:
        own = [counts[start + row] for row in range(len(store))]
        passes, more = divmod(sum(own), len(store))
        assert Counter(own) == Counter({passes: len(store) - more, passes + 1: more}) - Counter()
        start += len(store)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_stores_come_in_their_proportions(stores: list[TokenStore], world_size: int) -> None:
    for loader in ranks(stores, world_size, 25):
        source = torch.cat([batch.source for batch in steps_of(loader, 40)]).numpy()
        for number, weight in enumerate(WEIGHTS):
            assert np.abs(np.cumsum(source == number) - np.arange(1, 1001) * weight).max() < 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 10])
def test_every_row_comes_once_per_pass(stores: list[TokenStore], world_size: int) -> None:
    seen: list[int] = []
    iterators = [iter(loader) for loader in ranks(stores, world_size, 11)]
    for _ in range(25):
        for iterator in iterators:
            seen += next(iterator).row.tolist()
        check_passes(seen, stores)


def test_each_store_keeps_the_order_of_its_own_loader(stores: list[TokenStore]) -> None:
    found = rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 50, seed=5), 20))
    start = 0
    for number, store in enumerate(stores):
        own = [row - start for row in found if start <= row < start + len(store)]
        alone = TokenLoader(store, 9, seed=5 + number)
        expected = [row for _ in range(len(own) // len(store) + 1) for batch in alone for row in batch.row.tolist()]
        assert own == expected[: len(own)]
        start += len(store)


def test_passes_are_in_another_order(stores: list[TokenStore]) -> None:
    rows = rows_of(steps_of(MixtureLoader(stores[1:2], [1], 53), 3))
    assert len({tuple(rows[start : start + 53]) for start in (0, 53, 106)}) == 3


def test_seeds_differ(stores: list[TokenStore]) -> None:
    orders = [rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 20, seed=seed), 2)) for seed in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("steps", [0, 1, 3, 17])
def test_resuming_at_the_same_size_goes_on_with_the_same_batches(stores: list[TokenStore], steps: int) -> None:
    for rank in range(3):
        whole = steps_of(ranks(stores, 3, 20)[rank], 30)
        loader, resumed = ranks(stores, 3, 20)[rank], ranks(stores, 3, 20)[rank]
        begun = steps_of(loader, steps)
        state = json.loads(json.dumps(loader.state_dict()))
        assert state == ranks(stores, 3, 20)[rank].state_after(steps)
        resumed.load_state_dict(state)
        assert rows_of([*begun, *steps_of(resumed, 30 - steps)]) == rows_of(whole)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_interruptions_at_any_world_sizes_lose_and_double_nothing(
    stores: list[TokenStore], data: st.DataObject
) -> None:
    state = MixtureLoader(stores, WEIGHTS).state_dict()
    seen: list[int] = []
    for _ in range(data.draw(st.integers(1, 5), "interruptions")):
        world_size, batch_size = data.draw(st.integers(1, 5), "world size"), data.draw(st.integers(1, 40), "batch size")
        steps = data.draw(st.integers(0, 7), "steps")
        loaders = ranks(stores, world_size, batch_size)
        for loader in loaders:
            loader.load_state_dict(state)
            seen += rows_of(steps_of(loader, steps))
        states = [json.loads(json.dumps(loader.state_dict())) for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[0]
        check_passes(seen, stores)
        assert state["delivered"] == len(seen)


def test_a_state_does_not_grow(stores: list[TokenStore]) -> None:
    state = MixtureLoader(stores, WEIGHTS, 100).state_after(100_000)
    assert state["stores"][0]["pass"] == 30_000
    assert len(json.dumps(state)) < 1000


def test_passes_are_told(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS, 100)
    assert loader.passes == [0, 0, 0]
    counts = np.bincount(torch.cat([batch.source for batch in steps_of(loader, 7)]).numpy())
    assert loader.passes == pytest.approx([count / len(store) for count, store in zip(counts, stores, strict=True)])


def test_by_default_passes_end_together(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, batch_size=26)
    assert loader.weights == pytest.approx([200 / 260, 53 / 260, 7 / 260])
    assert len(set(rows_of(steps_of(loader, 10)))) > 255


# --- epochs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 3])
def test_an_epoch_has_the_rows_that_were_asked_for(stores: list[TokenStore], world_size: int) -> None:
    seen: list[int] = []
    for rank, loader in enumerate(ranks(stores, world_size, 10, rows_per_epoch=305)):
        whole = ranks(stores, world_size, 10)[rank]
        epochs = [batch for _ in range(3) for batch in loader]
        assert len(loader) == 305 // (10 * world_size)
        assert len(epochs) == 3 * len(loader)
        assert rows_of(epochs) == rows_of(steps_of(whole, len(epochs)))
        seen += rows_of(epochs)
    check_passes(seen, stores)


def test_a_resumed_epoch_ends_where_it_would_have(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=300)
    steps_of(loader, 12)
    for resumed in ranks(stores, 2, 5, rows_per_epoch=300):
        resumed.load_state_dict(loader.state_dict())
        assert [len(list(resumed)), len(list(resumed))] == [18, 30]


def test_a_state_taken_after_the_last_batch_goes_on_with_the_next_epoch(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=100)
    begun = steps_of(loader, 10)
    loader.load_state_dict(loader.state_dict())
    assert list(loader) == []
    assert rows_of([*begun, *loader]) == rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 10), 20))


def test_whoever_counts_batches_meets_no_empty_epoch(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=100)
    batches = [batch for _ in range(3) for batch in steps_of(loader, len(loader))]
    assert rows_of(batches) == rows_of(steps_of(MixtureLoader(stores, WEIGHTS, 10), 30))
    assert loader.state_dict()["delivered"] == 100


def test_without_an_end_there_is_no_length(stores: list[TokenStore]) -> None:
    with pytest.raises(TypeError, match="no end"):
        len(MixtureLoader(stores, WEIGHTS))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(stores: list[TokenStore], workers: int) -> None:
    expected = rows_of(list(MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=150)))
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=150)
    batches = list(DataLoader(loader, batch_size=None, num_workers=workers))
    assert rows_of(batches) == expected
    assert all(isinstance(batch, MixedBatch) for batch in batches)
    with pytest.raises(StoreError, match=r"copies of this mixture: use state_after\(steps\)"):
        loader.state_dict()
    loader.load_state_dict(loader.state_after(4))
    assert loader.state_dict()["position"] == 40
    assert rows_of(list(DataLoader(loader, batch_size=None, num_workers=workers))) == expected[40:]


@pytest.mark.parametrize("start_method", sampled("fork", "spawn"))
def test_workers_that_stay_go_on_with_the_next_epoch_and_notice_a_state(
    stores: list[TokenStore], start_method: str
) -> None:
    epochs = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=150)
    first, second, third = (rows_of(list(epochs)) for _ in range(3))
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=150)
    batches = DataLoader(
        loader, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=start_method
    )
    if start_method == "fork":  # what is patched here, and so the order, is not patched in spawned processes
        assert [rows_of(list(batches)) for _ in range(2)] == [first, second]
    else:
        assert [len(rows_of(list(batches))) for _ in range(2)] == [150, 150]
    loader.load_state_dict(loader.state_after(33))
    with pytest.raises(StoreError, match="given a state after these persistent workers were started; make a new"):
        next(iter(batches))
    assert rows_of(list(DataLoader(loader, batch_size=None, num_workers=2))) == third[30:]


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_that_stay_do_not_go_on_from_where_each_has_read_ahead(
    stores: list[TokenStore], start_method: str
) -> None:
    batches = DataLoader(
        MixtureLoader(stores, WEIGHTS, 10),
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=start_method,
    )
    for _ in islice(batches, 3):
        pass
    with pytest.raises(StoreError, match=r"left before its end, .* load_state_dict\(state_after\(steps\)\), then make"):
        next(iter(batches))


def test_the_state_after_some_steps_is_that_of_whoever_makes_them(stores: list[TokenStore]) -> None:
    """Right after the last batch of an epoch it is the end of that epoch, for a mixture as for a loader."""

    def made() -> list[TokenLoader | MixtureLoader]:
        return [TokenLoader(stores[0], 20), MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=105)]

    for steps in (0, 1, 9, 10, 11, 13, 20, 24):
        for counting, iterated, resumed in zip(made(), made(), made(), strict=True):
            batches = chain.from_iterable(repeat(iterated))  # epoch after epoch
            assert len(list(islice(batches, steps))) == steps
            state = json.loads(json.dumps(counting.state_after(steps)))
            assert state == iterated.state_dict()
            resumed.load_state_dict(state)
            left = len(resumed) - steps % len(resumed)
            assert len(list(resumed)) == (0 if steps and left == len(resumed) else left)
            assert resumed.epoch == -(-steps // len(resumed)) or not steps


def test_an_evaluation_gives_the_same_batches_every_time(stores: list[TokenStore]) -> None:
    sources = [stores[0], TokenLoader(stores[1], rows=range(5, 40), seed=1, label_dropout=1.0), stores[2]]
    mixture = MixtureLoader(sources, WEIGHTS, 10, rows_per_epoch=100, label_dropout=1.0)
    evaluation = mixture.evaluation()
    next(iter(evaluation))  # a peek
    expected = [batch.row.tolist() for batch in evaluation]
    assert len(expected) == len(evaluation) == 10
    for number, first in enumerate((0, 5, 0)):
        own = [row - evaluation.stores.starts[number] for batch in expected for row in batch]
        own = [row for row in own if 0 <= row < len(stores[number])]
        assert own[:7] == list(range(first, first + 7))  # in the order of the store
    two = iter(evaluation), iter(evaluation)
    assert [[batch.row.tolist() for batch in pair] for pair in zip(*two, strict=True)] == [
        [rows] * 2 for rows in expected
    ]
    batch = next(iter(evaluation))
    assert batch.label.tolist() == evaluation.stores.labels_of(batch.row).tolist()
    assert (evaluation.state_dict()["position"], mixture.state_dict()["position"]) == (0, 0)
    for workers in (0, 2):
        batches = DataLoader(evaluation, batch_size=None, num_workers=workers)
        assert [[batch.row.tolist() for batch in batches] for _ in range(2)] == [expected] * 2
    evaluation.set_epoch(1)
    assert evaluation.epoch == 1
    assert [batch.row.tolist() for batch in evaluation] != expected
    with pytest.raises(StoreError, match=r"this mixture keeps no position \(resume=False\)"):
        evaluation.load_state_dict(evaluation.evaluation(resume=True).state_after(2))
    assert repr(evaluation).endswith("rank 0 of 1, resume=False)")


def test_an_evaluation_may_be_another_in_some_things(stores: list[TokenStore]) -> None:
    endless = MixtureLoader(stores, WEIGHTS, 10)
    with pytest.raises(ValueError, match=r"an evaluation needs an end: evaluation\(rows_per_epoch=\.\.\.\)"):
        endless.evaluation()
    assert len(list(endless.evaluation(rows_per_epoch=45))) == 4
    alone = [batch.row.tolist() for batch in endless.evaluation(rows_per_epoch=80)]
    ranks = [endless.evaluation(rows_per_epoch=80, rank=rank, world_size=2, batch_size=5) for rank in range(2)]
    assert [len(list(loader)) for loader in ranks] == [8, 8]
    sources = {row for rows in alone for row in endless.stores.source_of(np.array(rows)).tolist()}
    assert sources == {0, 1, 2}
    held_out = endless.evaluation(
        sources=[TokenLoader(store, rows=[1, 3], shuffle=False) for store in stores], rows_per_epoch=20
    )
    assert {row for batch in held_out for row in batch.row_in_source.tolist()} == {1, 3}


def test_a_worker_s_state_goes_on_where_it_was(stores: list[TokenStore], monkeypatch: pytest.MonkeyPatch) -> None:
    class Info:
        id, num_workers = 1, 3

    whole = [batch.row.tolist() for batch in steps_of(MixtureLoader(stores, WEIGHTS, 10), 30)]
    for module in (mixture_module, epoch_rows):
        monkeypatch.setattr(module, "get_worker_info", Info)
    loader, resumed = MixtureLoader(stores, WEIGHTS, 10), MixtureLoader(stores, WEIGHTS, 10)
    assert [batch.row.tolist() for batch in steps_of(loader, 4)] == whole[1:12:3]
    state = json.loads(json.dumps(loader.state_dict()))
    resumed.load_state_dict(state)
    assert [batch.row.tolist() for batch in steps_of(resumed, 6)] == whole[13::3]
    for module in (mixture_module, epoch_rows):
        monkeypatch.setattr(module, "get_worker_info", lambda: None)
    with pytest.raises(StoreError, match="of worker 1 of 3"):
        MixtureLoader(stores, WEIGHTS, 10).load_state_dict(state)


# --- sources ----------------------------------------------------------------------------------------------


def test_some_rows_of_one_store_can_be_mixed_with_others(stores: list[TokenStore]) -> None:
    store = stores[0]
    rare = rows_with_label(store, 3)
    rest = np.setdiff1d(np.arange(len(store)), rare)
    loader = MixtureLoader([TokenLoader(store, rows=rare), TokenLoader(store, rows=rest)], [1, 1], 20)
    batches = steps_of(loader, 20)
    for batch in batches:
        assert ((batch.label == 3) == (batch.source == 0)).all()
    own = [batch.row_in_source[batch.source.numpy() == 0] for batch in batches]
    assert sorted(np.concatenate(own)[: len(rare)]) == rare.tolist()


def test_a_store_of_weight_0_is_not_read(stores: list[TokenStore], mixable: Path) -> None:
    loader = MixtureLoader([stores[0], TokenStore(mixable / "empty"), stores[1]], [1, 0, 3], 50)
    sources = np.concatenate([batch.source for batch in steps_of(loader, 10)])
    assert np.bincount(sources).tolist() == pytest.approx([125, 0, 375], abs=3)
    keys = set(stores[1].keys)
    assert all(key in keys for batch in steps_of(loader, 1) for key in np.array(batch.key)[batch.source == 2])


def test_little_is_read_ahead(stores: list[TokenStore], monkeypatch: pytest.MonkeyPatch) -> None:
    located: list[int] = []
    windows = OrderedRows.windows

    def counted(*arguments: Any) -> Iterator[Located]:
        for window in windows(*arguments):
            located.append(len(window))
            yield window

    monkeypatch.setattr(OrderedRows, "windows", counted)
    iterator = iter(MixtureLoader(stores, WEIGHTS, 10))
    next(iterator)
    wait_for(lambda: sum(located) >= 50 * batching_module._BLOCKS_AHEAD)
    time.sleep(0.2)
    in_the_making, windows_of_stores = 2 * 50, 3 * 4 * 16
    assert sum(located) <= 50 * batching_module._BLOCKS_AHEAD + in_the_making + windows_of_stores
    iterator.close()  # type: ignore[attr-defined]


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1, 2]}, "2 weights for 3 stores"),
        ({"weights": [1, -1, 1]}, "not negative, and not all 0, but are"),
        ({"weights": [1, float("nan"), 1]}, "must be finite"),
        ({"weights": [1, float("inf"), 1]}, "must be finite"),
        ({"weights": [0, 0, 0]}, "not all 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not in 0"),
        ({"rows_per_epoch": 511, "world_size": 2}, "rows_per_epoch is 511, less than a batch of 256 on every rank"),
    ],
)
def test_senseless_arguments_are_refused(stores: list[TokenStore], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureLoader(stores, **options)  # type: ignore[arg-type]


def test_no_stores_and_stores_of_nothing_are_refused(stores: list[TokenStore], mixable: Path) -> None:
    with pytest.raises(ValueError, match="at least one store"):
        MixtureLoader([])
    with pytest.raises(StoreError, match=r"/empty: no rows to give the mixture; leave it out, or give it the weight 0"):
        MixtureLoader([stores[0], TokenStore(mixable / "empty")], [1, 1])


def test_a_loader_with_a_transform_is_refused(stores: list[TokenStore]) -> None:
    with pytest.raises(
        ValueError, match="loader 1 has a transform, which no batch of it alone would meet: pass it here"
    ):
        MixtureLoader([stores[0], TokenLoader(stores[1], transform=len)])


def test_a_loader_of_another_rank_is_refused(stores: list[TokenStore]) -> None:
    loader = TokenLoader(stores[0], rank=1, world_size=2)
    with pytest.raises(ValueError, match="loader 0 is rank 1 of 2, the mixture rank 0 of 2"):
        MixtureLoader([loader], rank=0, world_size=2)
    MixtureLoader([loader], rank=1, world_size=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "the mixture's state has seed 0, this mixture 1"),
        ({"weights": [1, 1, 2]}, r"weights \[0.6.*\], this mixture \[0.25.*new_weights=True"),
        ({"offsets": [5, 5, 5]}, r"offsets \[0, 0, 0\], this mixture \[5, 5, 5\]"),
    ],
)
def test_a_state_of_another_mixture_is_refused(
    stores: list[TokenStore], options: dict[str, object], message: str
) -> None:
    state = MixtureLoader(stores, WEIGHTS).state_after(5)
    loader = MixtureLoader(stores, **{"weights": WEIGHTS, **options})  # type: ignore[arg-type]
    before = loader.state_dict()
    with pytest.raises(StoreError, match=message):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


def test_a_state_of_other_stores_is_refused(stores: list[TokenStore]) -> None:
    state = MixtureLoader(stores, WEIGHTS).state_dict()
    with pytest.raises(StoreError, match="is of 3 stores, this is of 2"):
        MixtureLoader(stores[:2], WEIGHTS[:2]).load_state_dict(state)
    with pytest.raises(StoreError, match=r"/b: the mixture's state has content_digest .*has the store grown\?"):
        MixtureLoader([stores[1], *stores[1:]], WEIGHTS).load_state_dict(state)
    some = [TokenLoader(store, seed=number, rows=[0, 1]) for number, store in enumerate(stores)]
    with pytest.raises(StoreError, match="/a: the mixture's state has rows None"):
        MixtureLoader(some, WEIGHTS).load_state_dict(state)


def test_what_is_no_state_is_refused(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS)
    state = loader.state_dict()
    for name in state.keys() - {"epoch"}:
        with pytest.raises(StoreError, match=f"no {name}"):
            loader.load_state_dict({key: value for key, value in state.items() if key != name})
    for change in ({"position": "x"}, {"stores": [{**own, "stretches": []} for own in state["stores"]]}):
        with pytest.raises(StoreError, match="the mixture's state is damaged: "):
            loader.load_state_dict({**state, **change})
    assert loader.state_dict() == state


def test_proportions_can_change_on_the_way(stores: list[TokenStore]) -> None:
    first = MixtureLoader(stores, WEIGHTS, 25)
    begun = rows_of(steps_of(first, 10))
    second = MixtureLoader(stores, [0.1, 0.1, 0.8], 25)
    second.load_state_dict(first.state_dict(), new_weights=True)
    batches = steps_of(second, 20)
    counts = np.bincount(torch.cat([batch.source for batch in batches]).numpy())
    assert counts.tolist() == pytest.approx([50, 50, 400], abs=3)
    check_passes([*begun, *rows_of(batches)], stores)


# --- epochs -----------------------------------------------------------------------------------------------


def epochs_of(stores: Sequence[TokenStore], count: int) -> list[list[list[int]]]:
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=100)
    return [[batch.row.tolist() for batch in loader] for _ in range(count)]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_mixture_goes_to_the_epoch_that_it_is_told(
    stores: list[TokenStore],
    workers: int,
    persistent: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pytest collects warnings in this process; those of workers would be collected in the workers.
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
    epochs = epochs_of(stores, 4)
    loader = MixtureLoader(stores, WEIGHTS, np.int64(10), rows_per_epoch=np.int64(100))  # type: ignore[arg-type]
    batches: Any = loader
    if workers:
        batches = DataLoader(loader, batch_size=None, num_workers=workers, persistent_workers=persistent)
    for epoch in (0, 1, 3, 1, 1, 2):
        loader.set_epoch(epoch)
        assert loader.epoch == epoch
        assert [batch.row.tolist() for batch in batches] == epochs[epoch]
    if workers:
        for _ in islice(batches, 3):
            pass
        loader.set_epoch(np.int64(3))
        assert [batch.row.tolist() for batch in batches] == epochs[3]
    assert "second time" not in capfd.readouterr().err or persistent is False
    if workers and not persistent:
        list(batches)
        assert "epoch 3 comes a second time" in capfd.readouterr().err


def test_a_mixture_that_resumes_may_be_told_its_epoch(stores: list[TokenStore]) -> None:
    epochs = epochs_of(stores, 3)
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=100)
    state = json.loads(json.dumps(loader.state_after(14)))
    resumed = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=100)
    resumed.load_state_dict(state)
    assert (resumed.epoch, resumed.steps_done, resumed.steps_left) == (1, 4, 6)
    for epoch, expected in ((1, epochs[1][4:]), (2, epochs[2]), (0, epochs[0])):
        resumed.set_epoch(epoch)
        assert [batch.row.tolist() for batch in resumed] == expected
    older = {name: value for name, value in state.items() if name != "epoch"}
    resumed.load_state_dict(older)
    assert [batch.row.tolist() for batch in resumed] == epochs[1][4:]
    endless = MixtureLoader(stores, WEIGHTS, 10)
    endless.set_epoch(0)
    with pytest.raises(ValueError, match="epoch 1 of a mixture without rows_per_epoch, which has no end"):
        endless.set_epoch(1)
    assert endless.steps_left is None


def test_two_iterators_of_a_mixture_do_not_share_a_counter(stores: list[TokenStore]) -> None:
    (whole,) = epochs_of(stores, 1)
    loader = MixtureLoader(stores, WEIGHTS, 10, rows_per_epoch=100, transform=lambda batch: batch.row.tolist())
    first = iter(loader)
    begun = list(islice(first, 3))
    second = iter(loader)
    assert list(islice(second, 2)) == whole[3:5]
    assert [*begun, *first] == whole
    assert (loader.epoch, loader.steps_done) == (0, 5)
    assert repr(loader).endswith("batches of 10, rank 0 of 1, epoch 0, 5 of 10 steps done)")
    assert list(second) == whole[5:]
    assert (loader.epoch, loader.steps_done) == (1, 0)
