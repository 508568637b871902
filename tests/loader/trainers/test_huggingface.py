"""`TokenTrainer`: the Trainer of transformers sees every row once, resumed or not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_store import store_of_rows

from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from pipeline.store.batch import TokenBatch

transformers = pytest.importorskip("transformers")

from pipeline.loader.trainers.huggingface import TokenTrainer  # noqa: E402


class Model(torch.nn.Module):
    """Counts rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 2)
        self.rows: list[list[int]] = []

    def forward(self, tokens: torch.Tensor, row: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        self.rows.append(row.tolist())
        return {"loss": self.embedding(tokens).square().mean()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """110 rows."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("trainer") / "store", [70, 40]))


def trained(store: TokenStore, out: Path, checkpoint: Path | None = None, **options: Any) -> list[list[int]]:
    """The rows of each step, of two epochs of 11 batches."""
    args = transformers.TrainingArguments(
        output_dir=str(out),
        num_train_epochs=2,
        restore_callback_states_from_checkpoint=True,
        per_device_train_batch_size=10,
        gradient_accumulation_steps=2,
        save_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        logging_steps=1000,
        **options,
    )
    model = Model()
    loader = TokenLoader(store, batch_size=10, seed=1, transform=TokenBatch.as_dict)
    TokenTrainer(model, args, train_dataset=loader).train(
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
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True, report_to=[]
    )
    with pytest.raises(ValueError, match=r"the loader has \{'batch_size': 10, .*, the training arguments say"):
        TokenTrainer(Model(), args, train_dataset=TokenLoader(store, batch_size=10))
