"""The rows of an epoch: all of a store, or some."""

import numpy as np
import pytest
from fixtures_store import store_of_rows

from pipeline.errors import StoreError
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore

ROWS = 107


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """107 rows in three parts."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("rows") / "store", [ROWS - 7, 0, 7]))


@pytest.mark.parametrize("rows", [[3, 2], [2, 2], [-1, 4], [ROWS], [[1]], [0.5], [True]], ids=str)
def test_rows_that_are_no_selection_are_refused(store: TokenStore, rows: list[int]) -> None:
    with pytest.raises(ValueError, match="rows must be"):
        TokenLoader(store, rows=rows)


def test_a_state_of_other_rows_is_refused(store: TokenStore) -> None:
    state = TokenLoader(store, rows=[1, 5, 9]).state_dict()
    TokenLoader(store, rows=np.array([1, 5, 9], np.uint16)).load_state_dict(state)
    for rows in (None, [1, 5, 8]):
        with pytest.raises(StoreError, match="the loader's state has rows"):
            TokenLoader(store, rows=rows).load_state_dict(state)
