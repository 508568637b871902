"""`TokenLoader.from_config`: the loader that a YAML configuration describes."""

from pathlib import Path

import pytest
import yaml
from fixtures_store import begin_store, make_birth, store_of_rows

from pipeline.errors import ConfigError, IncompleteStore, StoreError
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore

ROWS = 50


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("from_config") / "store", [30, 20]))


@pytest.fixture
def file(store: TokenStore, tmp_path: Path) -> Path:
    """A configuration of which only what a reader needs can be used: the images, and a variable, are elsewhere."""
    return written(
        tmp_path / "my.yaml",
        source={"shards": "${VQTOK_UNSET}/train-*.tar"},
        image={"size": 64},
        tokenize={"store": store.root},
        loader={"batch_size": 8, "shuffle": False, "seed": 3, "remainder": "drop", "parts_at_a_time": 1},
    )


def written(path: Path, **sections: object) -> Path:
    path.write_text(yaml.safe_dump(sections))
    return path


def rows_of(loader: TokenLoader) -> list[list[int]]:
    return [batch.row.tolist() for batch in loader]


def test_it_is_the_loader_of_the_store_with_the_options_of_the_file(file: Path, store: TokenStore) -> None:
    loader = TokenLoader.from_config(file)
    same = TokenLoader(store, batch_size=8, shuffle=False, seed=3, remainder="drop", parts_at_a_time=1)
    assert (loader.store.root, loader.state_dict()) == (store.root, same.state_dict())
    assert rows_of(loader) == rows_of(same) == [list(range(first, first + 8)) for first in range(0, 48, 8)]


def test_keywords_go_before_overrides_and_these_before_the_file(file: Path, store: TokenStore) -> None:
    changed = ["loader.shuffle=true", "loader.seed=5", "loader.batch_size=9", "loader.parts_at_a_time=0"]
    loader = TokenLoader.from_config(file, set=changed, seed=7, rank=1, world_size=2, rows=range(40))
    same = TokenLoader(store, 9, seed=7, rank=1, world_size=2, rows=range(40), remainder="drop")
    assert rows_of(loader) == rows_of(same)
    assert len(loader) == 2


def test_the_sections_default_to_what_the_constructor_defaults_to(store: TokenStore, tmp_path: Path) -> None:
    file = written(tmp_path / "my.yaml", tokenize={"store": store.root})
    assert rows_of(TokenLoader.from_config(file)) == rows_of(TokenLoader(store))


def test_a_store_that_is_open_is_read_instead(file: Path, tmp_path: Path) -> None:
    """Also one without rows."""
    empty = TokenStore(store_of_rows(tmp_path / "empty", []))
    assert TokenLoader.from_config(file, store=empty).store is empty


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loader.batchsize=3"], "loader.batchsize: unknown key; did you mean batch_size?"),
        (["loader.batch_size=0"], "loader.batch_size: "),
        (["loader.remainder=keep"], "loader.remainder: Input should be 'uneven', 'drop' or 'pad' (got 'keep')"),
        (["loder.seed=1"], "loder: unknown key; did you mean loader?"),
        (["tokenize.store=${VQTOK_UNSET}/x"], "VQTOK_UNSET is not set; export it or use --set (in Python: set=[...])"),
        (["tokenize.store=ftp://host/x"], "tokenize.store: ftp://host/x"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_file(file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenLoader.from_config(file, set=overrides)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_a_store_that_is_not_there_or_not_finished_is_named_with_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it is the run of the file, below the working folder."""
    monkeypatch.chdir(tmp_path)
    missing = (
        rf"^{file}: tokenize.store: .*runs/my/store: .*run vqtok tokenize first; .*working folder, which is {tmp_path}$"
    )
    with pytest.raises(StoreError, match=missing):
        TokenLoader.from_config(file, set=["tokenize.store=null"])
    begin_store(tmp_path / "begun", make_birth())
    with pytest.raises(IncompleteStore, match=rf"^{file}: tokenize.store: {tmp_path}/begun: .*partial=True\)$"):
        TokenLoader.from_config(file, set=[f"tokenize.store={tmp_path}/begun"])
    with pytest.raises(ConfigError, match=r"^none.yaml: no such configuration file"):
        TokenLoader.from_config("none.yaml")
