"""Stores that are exported, and the command that does it; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fixtures_store import begin_store, finish_store, make_birth, make_shard

from pipeline.cli import main
from pipeline.models.layouts.known import layout_of
from pipeline.records import Geometry
from pipeline.store import TokenStore
from pipeline.store.writing.writer import commit_part

COUNTS = (7, 0, 30)
ROWS = sum(COUNTS)
VIEWS = 3
GRID = (3, 5)
CLASSES = ("cat", "crane", "dog", "crane", "eel", "fox")
"""Labels of the rows are -1 to 5."""
TEXTS = (b"", None, "größer".encode(), b"a\nb")


def store_to_export(
    folder: Path, fields: Sequence[str] = ("txt", "key"), finished: bool = True, **changes: Any
) -> Path:
    """A store of parts with COUNTS rows of 3 x 5 tokens in quadrants; `changes` of its birth."""
    geometry = Geometry(image_size=(12, 20), grid=GRID, layout="quadrants", block_lengths=(2, 3, 4, 6), decodable=True)
    birth = make_birth(**{"vocab_size": 1000, "geometry": geometry, "fields": tuple(fields), **changes})
    files = begin_store(folder, birth)
    for number, rows in enumerate(COUNTS):
        texts = {name: [TEXTS[row % len(TEXTS)] for row in range(rows)] for name in fields}
        commit_part(files, birth, make_shard(birth, f"part{number}", rows, texts))
    if finished:
        finish_store(files, birth)
    return folder


def with_labels(folder: Path, label: int) -> Path:
    """A store of 5 rows that all have a label."""
    birth = make_birth(vocab_size=1000)
    files = begin_store(folder, birth)
    shard = make_shard(birth, "part", 5)
    shard.labels[:] = [label] * 5
    commit_part(files, birth, shard)
    finish_store(files, birth)
    return folder


@pytest.fixture(scope="session")
def exported_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store to export."""
    return store_to_export(tmp_path_factory.mktemp("exported") / "store")


@pytest.fixture(scope="session")
def store_of_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with VIEWS views of each row."""
    return store_to_export(tmp_path_factory.mktemp("exported") / "views", views=VIEWS, features=("views", "digests"))


@functools.cache
def grids(store: Path) -> np.ndarray:
    """Tokens of all rows in raster order, int64 [n, V, L], as the layout itself joins its blocks."""
    opened = TokenStore(store)
    views = []
    for view in range(opened.num_views):
        batch = opened.read(slice(None), view=view)
        views.append(layout_of(opened.geometry).join(batch.idx_Bl, GRID).flatten(1).numpy())  # type: ignore[union-attr]
    return np.stack(views, 1)


def labels(store: Path) -> list[int]:
    return TokenStore(store).labels.tolist()


def keys(store: Path) -> list[str]:
    return list(TokenStore(store).keys)


def vqtok_export(store: Path, out: Path, *options: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(main, ["export", str(store), str(out), *options])


def export(store: Path, out: Path, *options: str) -> Path:
    """The same, where it ends well; OUT."""
    done = vqtok_export(store, out, *options)
    assert done.exit_code == 0, done.output
    assert not out.with_name(f"{out.name}.partial").exists()
    return out
