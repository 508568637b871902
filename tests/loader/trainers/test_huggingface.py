"""`TokenTrainer`: the Trainer of transformers sees every row once, resumed or not."""

import json
import sys
from collections import Counter
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
from accelerate import skip_first_batches
from fixtures_store import cold, store_of_rows

from pipeline.loader import MixtureLoader, TokenLoader
from pipeline.store import TokenStore
from pipeline.store.batch import TokenBatch

# Imported when a test runs: every process of a test run collects all tests, and these take seconds.
transformers = partial(import_module, "transformers")
loops_transformers = partial(import_module, "loops_transformers")
trainers = partial(import_module, "pipeline.loader.trainers.huggingface")

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="no transformers here")

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """110 rows."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("trainer") / "store", [70, 40]))


def arguments(out: Path, **options: Any) -> Any:
    """Of two epochs in batches of ten."""
    return transformers().TrainingArguments(
        output_dir=str(out),
        num_train_epochs=2,
        per_device_train_batch_size=10,
        save_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        logging_steps=1000,
        **options,
    )


def trained(store: TokenStore, out: Path, checkpoint: Path | None = None, **options: Any) -> list[list[int]]:
    """The rows of each step, of two epochs of 11 batches."""
    args = arguments(out, **{"gradient_accumulation_steps": 2, **options})
    model = loops_transformers().Model()
    loader = TokenLoader(store, batch_size=10, seed=1, transform=TokenBatch.as_dict)
    trainers().TokenTrainer(model, args, train_dataset=loader).train(
        resume_from_checkpoint=str(checkpoint) if checkpoint else None
    )
    return model.rows


@pytest.mark.filterwarnings("ignore")
def test_training_goes_on_with_exactly_the_rest(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TokenLoader(store, batch_size=10, seed=1)
    expected = [batch.row.tolist() for _ in range(2) for batch in plain]
    assert trained(store, tmp_path) == expected
    read: list[int] = []
    batches_of = TokenStore.batches_of
    monkeypatch.setattr(
        TokenStore,
        "batches_of",
        lambda self, located, *options: (read.append(len(located)), batches_of(self, located, *options))[1],
    )
    for step, done in ((4, 8), (6, 11), (7, 13)):  # in an epoch, at its end, in the second
        read.clear()
        assert trained(store, tmp_path / "resumed", tmp_path / f"checkpoint-{step}") == expected[done:]
        assert sum(read) == 10 * (22 - done)  # nothing is read to be thrown away


@pytest.mark.filterwarnings("ignore")
def test_a_loader_that_does_not_fit_the_arguments_is_refused(store: TokenStore, tmp_path: Path) -> None:
    args = transformers().TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True, report_to=[]
    )
    with pytest.raises(ValueError, match=r"the loader has \{'batch_size': 10, .*, the training arguments say"):
        trainers().TokenTrainer(loops_transformers().Model(), args, train_dataset=TokenLoader(store, batch_size=10))


@pytest.mark.filterwarnings("ignore")
def test_a_loader_is_evaluated_in_its_own_batches(store: TokenStore, tmp_path: Path) -> None:
    args = transformers().TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True
    )
    model = loops_transformers().Model()
    held_out = TokenLoader(store, 10, transform=TokenBatch.as_dict).evaluation(rows=range(25))
    trainer = trainers().TokenTrainer(model, args, eval_dataset=held_out)
    for _ in range(2):
        trainer.evaluate()
    assert model.evaluated == [list(range(10)), list(range(10, 20)), list(range(20, 25))] * 2
    model.evaluated.clear()
    trainer.evaluate({"one": held_out, "other": held_out.evaluation(rows=[3])})
    assert model.evaluated[3:] == [[3]]
    with pytest.raises(ValueError, match=r"the loader has \{'rank': 1, 'world_size': 2\}, the training arguments say"):
        trainer.evaluate(TokenLoader(store, rank=1, world_size=2))


def test_a_checkpoint_that_trainer_would_go_on_from_elsewhere_is_refused(store: TokenStore, tmp_path: Path) -> None:
    """Of other batches: Trainer counts steps of the present size, where the loader knows rows."""
    trained(store, tmp_path, max_steps=2)
    with pytest.raises(
        ValueError, match=r"checkpoint of step 2 is 4 of 11 batches into epoch 0, and Trainer .* 8 into"
    ):
        trained(store, tmp_path / "other", tmp_path / "checkpoint-2", gradient_accumulation_steps=4)


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_goes_on_with_exactly_the_rest(store: TokenStore, tmp_path: Path) -> None:
    def inputs(batch: TokenBatch) -> dict[str, Any]:
        return {"tokens": batch.tokens, "row": batch.as_dict()["row"], "label": batch.label}

    def mixture(**options: Any) -> MixtureLoader:
        return MixtureLoader([store, store], weights=[0.7, 0.3], batch_size=10, transform=inputs, **options)

    loader = mixture(rows_per_epoch=50)
    expected = [batch["row"].tolist() for _ in range(2) for batch in cast("Any", loader)]
    for step in (0, 3, 5, 7):
        model = loops_transformers().Model()
        trainer = trainers().TokenTrainer(
            model,
            arguments(tmp_path / ("resumed" if step else "whole")),
            train_dataset=mixture(rows_per_epoch=50),
        )
        trainer.train(resume_from_checkpoint=str(tmp_path / f"whole/checkpoint-{step}") if step else None)
        assert model.rows == expected[step:]
    endless = arguments(tmp_path, max_steps=1)
    with pytest.raises(ValueError, match="give the mixture its rows_per_epoch"):
        trainers().TokenTrainer(loops_transformers().Model(), endless, train_dataset=mixture())


@pytest.mark.filterwarnings("ignore")
def test_what_trainer_cannot_take_is_refused(store: TokenStore, tmp_path: Path) -> None:
    args = transformers().TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=10, max_steps=1, report_to=[], use_cpu=True
    )
    model = loops_transformers().Model()
    with pytest.raises(TypeError, match=r"the loader gives a TokenBatch.*give the loader a transform"):
        trainers().TokenTrainer(model, args, train_dataset=TokenLoader(store, 10)).train()
    with pytest.raises(TypeError, match="a store makes no batches; train_dataset=TokenLoader"):
        trainers().TokenTrainer(model, args, train_dataset=store)
    full = TokenLoader(store, 10, remainder="drop", transform=TokenBatch.as_dict)  # of one shape, which can be stacked
    for dataset in (full, MixtureLoader([store], batch_size=10, rows_per_epoch=50, transform=TokenBatch.as_dict)):
        with pytest.raises(TypeError, match="in its place take TokenTrainer"):
            transformers().Trainer(model, args, train_dataset=dataset).train()


# --- two processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("skipped", [0, 1, 4])
def test_what_accelerate_skips_is_what_has_been_seen_on_every_rank(store: TokenStore, skipped: int) -> None:
    """As Trainer resumes: six batches of ten on each of two ranks, the last filled up."""
    for rank in range(2):
        whole, loader = (
            TokenLoader(store, 10, seed=1, rank=rank, world_size=2, transform=TokenBatch.as_dict) for _ in range(2)
        )
        expected = [batch["row"].tolist() for batch in cast("Any", whole)]
        loader.load_state_dict(loader.state_after(skipped))
        batches = trainers()._Batches(loader)
        rest = skip_first_batches(batches, skipped) if skipped else batches
        if hasattr(rest, "set_epoch"):
            rest.set_epoch(0)
        assert [batch["row"].tolist() for batch in rest] == expected[skipped:]
        assert len(expected) == 6


@pytest.mark.slow
def test_two_processes(store: TokenStore, tmp_path: Path) -> None:
    """Every row once an epoch over both, and exactly the rest from each checkpoint."""
    done = cold(*TORCHRUN, str(loops_transformers().__file__), store.root, str(tmp_path), timeout_s=280)
    assert done.status == 0, done.err
    ranks = [json.loads((tmp_path / f"rows-{rank}.json").read_text()) for rank in range(2)]
    steps = 6
    for epoch in range(loops_transformers().EPOCHS):
        of_epoch = slice(epoch * steps, (epoch + 1) * steps)
        seen = Counter(row for told in ranks for rows in told["whole"][of_epoch] for row in rows)
        assert seen == Counter(range(len(store)))
    for told in ranks:
        for step in loops_transformers().RESUMED:
            assert told[str(step)] == told["whole"][step * loops_transformers().ACCUMULATED :]
    evaluated = Counter(row for told in ranks for rows in told["evaluated"] for row in rows)
    assert evaluated == Counter(dict.fromkeys(range(0, len(store), 3), loops_transformers().EPOCHS))
