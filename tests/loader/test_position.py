"""Where a loader stands, and what moves it."""

import json
import sys
import warnings
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import store_of_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples
from torch.utils.data import DataLoader

from pipeline.errors import StoreError
from pipeline.loader import TokenBatch, TokenDataset, TokenLoader, rows_with_label, split_rows
from pipeline.loader.position import Position, Steps
from pipeline.store import TokenStore

ROWS = 331


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """331 rows."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("position") / "store", [100, 0, 7, 1, 223]))


def rows_of(batches: Iterable[TokenBatch]) -> list[list[int]]:
    return [batch.row.tolist() for batch in batches]


def epochs_of(store: TokenStore, count: int, **options: Any) -> list[list[list[int]]]:
    """The rows of the batches of some epochs."""
    loader = TokenLoader(store, **options)
    return [rows_of(loader) for _ in range(count)]


# --- evaluation -------------------------------------------------------------------------------------------


def test_an_evaluation_begins_with_the_first_row_every_time(store: TokenStore) -> None:
    training = TokenLoader(store, batch_size=20, seed=3, label_dropout=0.5, rows=range(7, 290))
    evaluation = training.evaluation()
    expected = [list(range(7, 290))[first : first + 20] for first in range(0, 283, 20)]
    next(iter(evaluation))  # a peek
    list(islice(evaluation, 2))  # a sanity check
    for _ in range(2):
        assert rows_of(evaluation) == expected
    assert next(iter(evaluation)).label.tolist() == store.labels_of(np.arange(7, 27)).tolist()
    assert rows_of(DataLoader(evaluation, batch_size=None, num_workers=2)) == expected
    assert rows_of(training.evaluation(rows=range(5), batch_size=3)) == [[0, 1, 2], [3, 4]]
    evaluation.set_epoch(4)
    assert rows_of(evaluation) == expected
    assert training.state_dict()["stages"] == [[1, 0]]


def test_an_evaluation_on_several_ranks_takes_equally_many_steps(store: TokenStore) -> None:
    ranks = [
        TokenLoader(store, 20, rank=rank, world_size=3, remainder="drop", views=0).evaluation() for rank in range(3)
    ]
    batches = [list(loader) for loader in ranks]
    assert {len(own) for own in batches} == {6}
    rows = [row for own in batches for batch in own for row in batch.row[batch.mask.numpy()].tolist()]  # type: ignore[union-attr]
    assert rows == list(range(ROWS))


def test_a_loader_that_keeps_no_position_can_be_shuffled_and_takes_no_state(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=3, resume=False)
    first, second = epochs_of(store, 2, batch_size=20, seed=3)
    next(iter(loader))
    assert rows_of(loader) == rows_of(loader) == first
    loader.set_epoch(1)
    assert rows_of(loader) == second
    state = loader.state_dict()
    assert state == {**TokenLoader(store, batch_size=20, seed=3).state_dict(), "epoch": 1}
    loader.load_state_dict(state)
    with pytest.raises(StoreError, match=r"keeps no position \(resume=False\); give the state to the one for training"):
        loader.load_state_dict(TokenLoader(store, batch_size=20, seed=3).state_after(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "None is not the state of a TokenLoader, which is a dict"),
        ({"stages": []}, "the loader's state is damaged: IndexError"),
        ({"stages": "x"}, "the loader's state is damaged: ValueError"),
        ({"epoch": None}, "the loader's state is damaged: TypeError"),
    ],
)
def test_what_is_no_state_is_refused(store: TokenStore, change: Any, message: str) -> None:
    loader = TokenLoader(store, batch_size=20)
    state = loader.state_dict()
    with pytest.raises(StoreError, match=message):
        loader.load_state_dict(change and {**state, **change})
    assert loader.state_dict() == state


# --- what moves a loader ----------------------------------------------------------------------------------


def test_set_epoch_goes_back_to_the_beginning(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=1)
    (whole,) = epochs_of(store, 1, batch_size=20, seed=1)
    next(iter(loader))
    loader.set_epoch(0)
    assert rows_of(loader) == whole
    loader.set_epoch(0)
    assert rows_of(loader) == whole


def test_a_loop_that_resumes_may_say_its_epoch(store: TokenStore) -> None:
    first, second = epochs_of(store, 2, batch_size=20, seed=1)
    state = TokenLoader(store, batch_size=20, seed=1).state_after(5)
    for told in (1, 3):
        loader = TokenLoader(store, batch_size=20, seed=1)
        loader.load_state_dict(state)
        for _ in range(told):
            loader.set_epoch(0)
        assert rows_of(loader) == first[5:]
        loader.set_epoch(1)
        assert rows_of(loader) == second
        loader.set_epoch(0)
        assert rows_of(loader) == first  # it has gone on since


def test_two_iterators_do_not_share_a_counter(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=1)
    (whole,) = epochs_of(store, 1, batch_size=20, seed=1)
    first = iter(loader)
    begun = rows_of(islice(first, 3))
    second = iter(loader)
    assert rows_of(islice(second, 2)) == whole[3:5]  # where the loader stands
    assert begun + rows_of(first) == whole  # and its own way to the end
    assert (loader.epoch, loader.steps_done) == (0, 5)
    assert rows_of(second) == whole[5:]
    assert (loader.epoch, loader.steps_done) == (1, 0)


def test_an_iterator_of_before_does_not_move_the_loader(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=1)
    before = iter(loader)
    next(before)
    loader.set_epoch(5)
    state = loader.state_dict()
    list(before)
    assert loader.state_dict() == state


# --- states of loops that count ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_beyond_the_end_is_in_a_later_epoch(store: TokenStore, workers: int) -> None:
    epochs = epochs_of(store, 3, batch_size=100, seed=1)
    loader = TokenLoader(store, batch_size=100, seed=1)
    loader.load_state_dict(loader.state_after(1))
    for steps, (epoch, taken) in {0: (0, 1), 3: (0, 4), 4: (1, 1), 7: (1, 4), 8: (2, 1)}.items():
        state = json.loads(json.dumps(loader.state_after(steps)))
        resumed = TokenLoader(store, batch_size=100, seed=1)
        resumed.load_state_dict(state)
        assert (resumed.epoch, resumed.steps_done, resumed.steps_left) == (epoch, taken, 4 - taken)
        batches: Any = DataLoader(resumed, batch_size=None, num_workers=workers) if workers else resumed
        assert rows_of(batches) == epochs[epoch][taken:]
    with pytest.raises(ValueError, match="steps must be at least 0, not -1"):
        loader.state_after(-1)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.integers(0, 60),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from(["uneven", "drop", "pad"]),
    st.integers(0, 5),
    st.integers(0, 40),
)
def test_steps_add_up(rows: int, world_size: int, batch_size: int, remainder: Any, first: int, more: int) -> None:
    """So many steps at once lead where so many one after the other do; all ranks agree."""
    steps = Steps(rows, batch_size, remainder)
    begin = Position.beginning(0, world_size)
    whole = steps.most_left(begin)
    assert whole == max(steps.left(begin, rank) for rank in range(world_size))
    at_once, one_by_one = steps.after(steps.after(begin, first), more), begin
    for _ in range(first + more):
        one_by_one = steps.after(one_by_one, 1)
    if whole:
        assert at_once == one_by_one == steps.after(begin, first + more)
        epoch, taken = at_once.epoch, at_once.stages[-1].taken // batch_size
        assert epoch * whole + taken == first + more
        assert 0 < taken <= whole or first + more == 0


def test_workers_that_give_an_epoch_again_say_so(
    store: TokenStore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest collects warnings in this process; those of workers would be collected in the workers.
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
    again = "epoch 1 comes a second time: workers of a DataLoader iterate over copies"
    for persistent in (False, True):
        loader = TokenLoader(store, batch_size=50)
        batches = DataLoader(loader, batch_size=None, num_workers=2, persistent_workers=persistent)
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            list(batches)
        loader.set_epoch(1)  # asked for
        list(batches)
        assert "second time" not in capfd.readouterr().err
        list(batches)
        assert capfd.readouterr().err.count(again) == 1
        del batches
    list(batches := DataLoader(loader.evaluation(), batch_size=None, num_workers=2))
    list(batches)
    assert "second time" not in capfd.readouterr().err


def test_the_length_is_that_of_whole_epochs_and_what_is_left_is_told(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=1)
    loader.load_state_dict(loader.state_after(10))
    batches = DataLoader(loader, batch_size=None)
    assert (len(loader), len(batches), loader.steps_left) == (17, 17, 7)
    assert [sum(1 for _ in batches) for _ in range(2)] == [7, 17]
    assert (len(batches), loader.steps_left, loader.steps_done, loader.epoch) == (17, 17, 0, 2)


# --- arguments --------------------------------------------------------------------------------------------


def test_integers_of_numpy_are_as_good_as_those_of_python(store: TokenStore) -> None:
    n = np.int64
    loader = TokenLoader(store, n(20), np.bool_(True), n(3), np.uint8(1), np.int32(2), parts_at_a_time=n(2), views=n(0))  # type: ignore[arg-type]
    same = TokenLoader(store, 20, True, 3, 1, 2, parts_at_a_time=2)
    loader.set_epoch(n(1))
    same.set_epoch(1)
    assert json.dumps(loader.state_after(n(2))) == json.dumps(same.state_after(2))
    assert repr(loader) == repr(same)
    assert rows_of(loader) == rows_of(same)
    assert store[n(3)].key == store[3].key
    assert rows_with_label(store, n(3)).tolist() == rows_with_label(store, 3).tolist()
    for held_out in (0.25, 20):
        kind = np.float32 if isinstance(held_out, float) else np.int16
        assert [s.tolist() for s in split_rows(store, kind(held_out))] == [
            s.tolist() for s in split_rows(store, held_out)
        ]
    for name, value in (("batch_size", 2.5), ("rank", "1"), ("world_size", None), ("seed", True), ("seed", -1)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            TokenLoader(store, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epoch must be at least 0, not -1"):
        loader.set_epoch(-1)


def test_a_loader_says_what_it_is(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, rank=1, world_size=2)
    next(iter(loader))
    assert repr(loader) == (
        f"TokenLoader({store.root}: 331 rows, batches of 20, rank 1 of 2, epoch 0, 1 of 9 steps done)"
    )
    assert (loader.epoch, loader.steps_done, loader.steps_left, loader.rank, loader.world_size) == (0, 1, 8, 1, 2)
    assert repr(loader.evaluation()).endswith("rank 1 of 2, resume=False)")
    assert repr(store) == f"TokenStore({store.root}: 331 rows, 8 tokens each, layout invented, 16 codes)"
    assert repr(TokenDataset(store, [1, 2])) == f"TokenDataset({store.root}: 2 rows)"
    assert repr(store.read([1, 2])) == "TokenBatch(2 images: uint8 [2, 8] on cpu)"


# --- several ranks ----------------------------------------------------------------------------------------


def test_by_default_no_rank_makes_a_step_more_than_another(store: TokenStore) -> None:
    for world_size in (1, 2, 3):
        loaders = [TokenLoader(store, 25, rank=rank, world_size=world_size) for rank in range(world_size)]
        batches = [list(loader) for loader in loaders]
        assert len({len(own) for own in batches}) == 1
        assert all((batch.mask is None) == (world_size == 1) for own in batches for batch in own)
        rows = [row for own in batches for b in own for row in (b.row if b.mask is None else b.row[b.mask.numpy()])]
        assert sorted(rows) == list(range(ROWS))


def test_a_batch_that_drop_leaves_out_altogether_is_told(store: TokenStore) -> None:
    with pytest.warns(
        UserWarning, match="331 rows fill no batch of 200 on each of 2 ranks, and remainder='drop' leaves"
    ):
        TokenLoader(store, 200, world_size=2, remainder="drop")


# --- transforms -------------------------------------------------------------------------------------------


def test_a_transform_changes_what_comes_and_nothing_else(store: TokenStore) -> None:
    plain = TokenLoader(store, batch_size=20, seed=1)
    loader = TokenLoader(store, batch_size=20, seed=1, transform=TokenBatch.as_dict)
    assert len(loader) == 17
    begun = list(islice(iter(loader), 3))
    state = loader.state_dict()
    assert state["stages"] == [[1, 60]]
    for workers in (0, 2):
        resumed = TokenLoader(store, batch_size=20, seed=1, transform=TokenBatch.as_dict)
        resumed.load_state_dict(state)
        rest = list(DataLoader(resumed, batch_size=None, num_workers=workers))
        plain.set_epoch(0)
        for item, batch in zip([*begun, *rest], plain, strict=True):
            assert torch.equal(item["tokens"], batch.tokens)  # type: ignore[call-overload]
            assert (item["row"].tolist(), item["label"].tolist()) == (batch.row.tolist(), batch.label.tolist())  # type: ignore[call-overload]
        assert resumed.epoch == (0 if workers else 1)
