"""`TokenLoader` and `TokenDataModule` in Lightning: rows are counted, and go on from any checkpoint."""

import json
import sys
from collections import Counter
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import cold, store_of_rows
from support import sampled

from pipeline.store import TokenStore

# Imported when a test runs: every process of a test run collects all tests, and these take seconds.
loops_lightning = partial(import_module, "loops_lightning")
trainers = partial(import_module, "pipeline.loader.trainers.lightning")

ROWS, STEPS = 331, 17
ALL = list(range(ROWS))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(find_spec("lightning") is None, reason="no Lightning here"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 331 rows in parts of uneven sizes."""
    return store_of_rows(tmp_path_factory.mktemp("lightning") / "store", [100, 0, 7, 1, 223])


def fit(ranks: int, *arguments: object) -> None:
    if ranks == 1:
        loops_lightning().main(*map(str, arguments))
        return
    done = cold(*TORCHRUN, str(loops_lightning().__file__), *map(str, arguments), timeout_s=280)
    assert done.status == 0, done.err


def told(folder: Path, name: str, rank: int = 0) -> dict[str, list[int]]:
    """The rows of each epoch on a rank."""
    rows: dict[str, list[int]] = json.loads((folder / f"{name}-{rank}.json").read_text())
    return rows


def counted(folder: Path, name: str, epoch: int) -> Counter[int]:
    """How often rows came to any of two ranks in an epoch."""
    return Counter(row for rank in range(2) for row in told(folder, name, rank)[str(epoch)])


@pytest.mark.parametrize(
    ("handed", "checkpoints"), sampled(("module", [3, 17, 20]), ("stateful", [3, 20]), ("itself", [3, 17, 34]))
)
def test_training_goes_on_in_the_middle_of_an_epoch(
    path: Path, tmp_path: Path, handed: str, checkpoints: list[int]
) -> None:
    """17 steps an epoch: those of steps 17 and 34 were written after its last batch, before its end."""
    if handed == "stateful":
        pytest.importorskip("torchdata")
    fit(1, path, tmp_path, handed, "uneven")
    whole = told(tmp_path, "rows")
    assert [sorted(rows) for rows in whole.values()] == [ALL] * 3
    assert len({tuple(rows) for rows in whole.values()}) == 3
    if handed == "module":  # the sanity check before the first epoch has taken nothing
        assert told(tmp_path, "rows-validated") == {str(epoch): list(loops_lightning().VALIDATED) for epoch in range(3)}
    for step in checkpoints:
        fit(1, path, tmp_path, handed, "uneven", tmp_path / f"step={step}.ckpt")
        begun, steps = divmod(step, STEPS)
        expected = {str(begun): whole[str(begun)][steps * 20 :], **{str(n): whole[str(n)] for n in range(begun + 1, 3)}}
        assert told(tmp_path, "resumed") == expected


def test_training_goes_on_after_an_epoch(path: Path, tmp_path: Path) -> None:
    fit(1, path, tmp_path, "workers", "uneven")
    whole = told(tmp_path, "rows")
    assert [sorted(rows) for rows in whole.values()] == [ALL] * 3
    for handed in ("itself", "module"):
        fit(1, path, tmp_path, handed, "uneven", tmp_path / "end-epoch=1.ckpt")
        assert told(tmp_path, "resumed") == {"2": whole["2"]}


@pytest.mark.slow
@pytest.mark.timeout(600)  # two cold starts of two processes each, of which each has 280 s
@pytest.mark.parametrize(
    ("handed", "remainder", "steps", "delivered"),
    [("itself", "drop", 8, 320), ("itself", "pad", 9, 331), ("module", "drop", 8, 320), ("module", "pad", 9, 331)],
)
def test_two_processes(path: Path, tmp_path: Path, handed: str, remainder: str, steps: int, delivered: int) -> None:
    fit(2, path, tmp_path, handed, remainder)
    for epoch in range(3):
        rows = counted(tmp_path, "rows", epoch)
        assert (len(rows), set(rows.values())) == (delivered, {1})
        if handed == "module":
            assert counted(tmp_path, "rows-validated", epoch) == Counter(loops_lightning().VALIDATED)
    fit(2, path, tmp_path, handed, remainder, tmp_path / f"step={steps + 3}.ckpt")
    for rank in range(2):
        whole, rest = told(tmp_path, "rows", rank), told(tmp_path, "resumed", rank)
        assert rest == {"1": whole["1"][3 * 20 :], "2": whole["2"]}


def test_what_a_data_module_is_made_of(path: Path) -> None:
    store = TokenStore(path)
    for option in ("rank", "world_size"):
        with pytest.raises(ValueError, match=f"{option}: the trainer's are taken; leave them out"):
            trainers().TokenDataModule(store, **{option: 1})

    class Trainer:
        """As far as a data module asks."""

        def __init__(self, rank: int, world_size: int) -> None:
            self.global_rank, self.world_size = rank, world_size
            self.callbacks: list[Any] = []

    shared = {"rows": [2, 3, 9], "val_rows": [3, 5], "test_rows": [4]}
    for options, message in (
        (shared, r"^1 of 2 val_rows are"),
        ({"test_rows": [3, 5]}, r"^2 of 2 test_rows are trained"),
    ):
        data = trainers().TokenDataModule(store, 20, **options)
        data.trainer = Trainer(0, 1)
        data.setup("test")
        with pytest.warns(UserWarning, match=message) as caught:
            data.setup("fit")
        assert len(caught) == 1
    rest = [row for row in range(len(store)) if row not in (3, 5)]
    data = trainers().TokenDataModule(store, 20, rows=rest, val_rows=[3, 5], label_dropout=0.5)
    lengths = []
    for world_size in (1, 2):
        data.trainer = Trainer(0, world_size)
        for _ in range(2):
            data.setup("fit")
        assert len(data.trainer.callbacks) == 1
        lengths.append(len(data.train_dataloader()))
    assert lengths == [17, 8]  # those of several ranks are equal without rows that come twice
    assert data.test_dataloader() == []
    validation: Any = data.val_dataloader()
    assert [batch.row[batch.mask.numpy()].tolist() for batch in validation] == [[3]]
