"""Rows of a store by label, by metadata, and held out: the same ones for ever."""

from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import begin_store, finish_store, make_birth, make_shard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.loader import RowRecord, TokenLoader, rows_where, rows_with_label, split_rows
from pipeline.loader import selecting as rows_module
from pipeline.store import TokenStore
from pipeline.store.writing.writer import commit_part

COUNTS = {"a": 100, "b": 0, "c": 7, "d": 1, "e": 223}


def store_of_parts(folder: Path, counts: Mapping[str, int]) -> TokenStore:
    """A store of named parts that keeps captions; those of row 0 are missing, of row 1 empty."""
    birth = make_birth(fields=("txt",))
    files = begin_store(folder, birth)
    for part, rows in counts.items():
        captions = [None, b"", *(f"{part} {row}".encode() for row in range(2, rows))][:rows]
        commit_part(files, birth, make_shard(birth, part, rows, {"txt": captions}))
    finish_store(files, birth)
    return TokenStore(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """331 rows in parts of uneven sizes."""
    return store_of_parts(tmp_path_factory.mktemp("rows") / "store", COUNTS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read 32 at a time."""
    monkeypatch.setattr(rows_module, "_LABEL_ROWS", 32)
    monkeypatch.setattr(rows_module, "_RECORD_ROWS", 32)


@pytest.mark.parametrize("labels", [3, [3], [0, 5], (-1,), {2, 99}, [], 99, np.array([1, 2])])
def test_rows_with_labels_are_those(store: TokenStore, labels: object) -> None:
    wanted = [labels] if isinstance(labels, int) else list(labels)  # type: ignore[call-overload]
    found = rows_with_label(store, labels)  # type: ignore[arg-type]
    assert found.dtype == np.int64
    assert found.tolist() == [row for row, label in enumerate(store.labels.tolist()) if label in wanted]


def test_a_predicate_sees_each_row_once_with_all_that_is_known(store: TokenStore) -> None:
    seen: list[RowRecord] = []
    assert rows_where(store, lambda record: bool(seen.append(record)), fields=["txt"]).tolist() == []
    assert [record.row for record in seen] == list(range(len(store)))
    assert [record.key for record in seen] == list(store.keys)
    assert [record.label for record in seen] == store.labels.tolist()
    assert [record.source for record in seen] == [f"{part}.tar" for part, rows in COUNTS.items() for _ in range(rows)]
    assert [record.fields["txt"] for record in seen] == store.read(slice(None)).field("txt")
    assert {record.fields["txt"] for record in seen[100:103]} == {None, b"", b"c 2"}
    with pytest.raises(FrozenInstanceError):
        seen[0].label = 1  # type: ignore[misc]


def test_rows_that_a_predicate_chose_are_what_a_loader_delivers(store: TokenStore) -> None:
    rows = rows_where(store, lambda record: record.source == "e.tar" and record.label == 2)
    assert rows.dtype == np.int64
    assert rows.tolist() == [108 + row for row in range(223) if row % 7 == 3]
    delivered = np.concatenate([batch.row for batch in TokenLoader(store, batch_size=10, rows=rows)])
    assert sorted(delivered) == rows.tolist()


def test_fields_that_were_not_asked_for_are_not_read(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenStore, "field_of", None)
    assert len(rows_where(store, lambda record: not record.fields)) == len(store)
    for look in (lambda record: record.fields["txt"], lambda record: record.fields.get("txt") is None):
        with pytest.raises(StoreError, match=r"'txt' of a row was not asked for: rows_where\(..., fields=\['txt'\]\)"):
            rows_where(store, look)


def test_no_more_than_a_block_is_read_at_a_time(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    keys_of = TokenStore.keys_of
    monkeypatch.setattr(TokenStore, "keys_of", lambda self, rows: asked.append(len(rows)) or keys_of(self, rows))
    rows_where(store, lambda record: True)
    assert (max(asked), sum(asked)) == (32, len(store))


def test_a_field_that_there_is_not_is_refused(store: TokenStore, tmp_path: Path) -> None:
    for any_store in (store, store_of_parts(tmp_path, {})):
        with pytest.raises(StoreError, match="no field 'json'; there is txt"):
            rows_where(any_store, lambda record: True, fields=["json"])


@given(st.floats(0, 1), st.integers(0, 2**70))
def test_each_row_is_on_one_side(store: TokenStore, fraction: float, seed: int) -> None:
    train, held_out = split_rows(store, fraction, seed)
    assert (train.dtype, held_out.dtype) == (np.int64, np.int64)
    assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(store)))


@pytest.mark.parametrize("count", [0, 1, 33, 330, 331])
def test_a_number_of_rows_is_held_out_exactly(store: TokenStore, count: int) -> None:
    train, held_out = split_rows(store, count)
    assert (len(train), len(held_out)) == (331 - count, count)
    assert sorted([*train, *held_out]) == list(range(331))


def test_more_are_the_same_and_more(store: TokenStore) -> None:
    for smaller, larger in ((0.1, 0.2), (0.0, 1.0), (10, 50)):
        assert set(split_rows(store, smaller)[1]) < set(split_rows(store, larger)[1])


def test_a_fraction_is_kept_to_over_all_parts(tmp_path: Path) -> None:
    store = store_of_parts(tmp_path, {"p": 20_000, "q": 20_000})
    _, held_out = split_rows(store, 0.1)
    share_of_part = np.bincount(held_out // 20_000) / 20_000
    assert share_of_part == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 20_000) ** 0.5)
    assert abs(np.corrcoef(held_out[:-1] % 2, held_out[1:] % 2)[0, 1]) < 0.1
    other = split_rows(store, 0.1, seed=1)[1]
    assert len(np.intersect1d(held_out, other)) / len(store) == pytest.approx(0.01, rel=0.2)


def test_no_row_changes_sides_when_a_store_grows(store: TokenStore, tmp_path: Path) -> None:
    grown = store_of_parts(tmp_path, {"0": 50, **COUNTS, "dd": 40, "f": 9})
    before, after = ({store.keys[row] for row in split_rows(store, 0.2)[1]} for store in (store, grown))
    assert {key for key in after if key.partition("/")[0] in COUNTS} == before


def test_a_selection_changes_no_side(store: TokenStore) -> None:
    rows = rows_with_label(store, [1, 4])
    train, held_out = split_rows(store, 0.3, rows=rows)
    whole_train, whole_held_out = split_rows(store, 0.3)
    assert train.tolist() == np.intersect1d(whole_train, rows).tolist()
    assert held_out.tolist() == np.intersect1d(whole_held_out, rows).tolist()
    assert len(split_rows(store, 7, rows=rows)[1]) == 7
    assert [len(side) for side in split_rows(store, 0.5, rows=[])] == [0, 0]


def test_equal_hashes_do_not_change_the_number(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "splitmix64", lambda key, places: np.zeros(len(places), np.uint64))
    assert split_rows(store, 5)[1].tolist() == [0, 1, 2, 3, 4]


def test_no_version_changes_the_sides(store: TokenStore) -> None:
    """Whoever has trained must find the rows held out that were: never change these numbers."""
    assert split_rows(store, 0.05)[1].tolist() == [54, 81, 90, 99, 156, 255, 261, 270, 272, 274, 287]
    assert split_rows(store, 8, seed=7)[1].tolist() == [94, 95, 152, 154, 164, 185, 194, 314]


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (-0.1, "a fraction in 0 .. 1 or a number of rows, not -0.1"),
        (1.5, "not 1.5"),
        (float("nan"), "not nan"),
        (332, "a number of rows in 0 .. 331, not 332"),
        (-1, "not -1"),
        (True, "not True"),
    ],
)
def test_senseless_splits_are_refused(store: TokenStore, held_out: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_rows(store, held_out)


def test_rows_out_of_order_are_refused(store: TokenStore) -> None:
    with pytest.raises(ValueError, match=r"must be sorted .*, and 2 comes after 3: np\.unique\(rows\)"):
        split_rows(store, 0.5, rows=[1, 3, 2])
    for row in (-1, len(store)):
        with pytest.raises(ValueError, match=rf"rows must be in 0 \.\. {len(store) - 1}, .*, not {row}$"):
            TokenLoader(store, rows=[0, row])


def test_no_rows_at_all_are_warned_of(store: TokenStore) -> None:
    with pytest.warns(UserWarning, match=r"no rows of the \d+ of .* are chosen: there are no batches"):
        assert list(TokenLoader(store, rows=rows_with_label(store, [99]))) == []
