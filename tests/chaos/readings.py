"""Everything that a store can be asked, and whether what it answers is right, or a clear refusal."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from click.testing import CliRunner

from pipeline import cli
from pipeline.errors import VqtokError
from pipeline.files import clients, objects
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from pipeline.store import reader as reader_module
from pipeline.store.batch import TokenBatch

Contents = dict[str, Any]
"""What a store holds, by the question."""

QUESTIONS: dict[str, Callable[[TokenStore], Any]] = {
    "tokens": lambda store: _tokens(store.read(slice(None))),
    "scattered tokens": lambda store: _tokens(store.read(_scattered(store))),
    "labels": lambda store: store.labels.numpy(),
    "keys": lambda store: list(store.keys),
    "found key": lambda store: store.keys.find("000003").tolist(),
    "captions": lambda store: store.field_of("txt", np.arange(len(store))),
    "one row": lambda store: _row(store, 7),
    "codebook": lambda store: store.codebook.numpy(),
    "embeddings": lambda store: store.idxBl_to_var_input(store.read([1, 5]).idx_Bl).numpy(),
    "block lengths": lambda store: store.block_lengths,
    "vocabulary": lambda store: (store.vocab_size, store.embedding_dim),
    "epoch": lambda store: _epoch(store),
}


def _tokens(batch: TokenBatch) -> np.ndarray:
    """int64 [B, L_total]."""
    return np.concatenate([block.numpy() for block in batch.idx_Bl], axis=1)


def _scattered(store: TokenStore) -> list[int]:
    return np.random.default_rng(1).permutation(len(store)).tolist()


def _row(store: TokenStore, row: int) -> tuple[Any, ...]:
    sample = store[row]
    return sample.key, sample.label, [block.tolist() for block in sample.idx_l]


def _epoch(store: TokenStore) -> list[tuple[Any, ...]]:
    batches = TokenLoader(store, batch_size=8, shuffle=True, seed=3)
    return sorted(
        (key, label, *tokens)
        for batch in batches
        for key, label, tokens in zip(batch.key, batch.label.tolist(), _tokens(batch).tolist(), strict=True)
    )


def contents_of(store: TokenStore) -> Contents:
    """The answers of a sound store."""
    return {name: question(store) for name, question in QUESTIONS.items()}


@dataclass
class Reading:
    """What came of reading one store."""

    right: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    def ask(self, name: str, question: Callable[[], Any], expected: Any) -> None:
        """Add the answer to a question, which may be refused in the words of the package alone."""
        try:
            answer = question()
        except VqtokError as error:
            self.refused += 1
            if not any(place in str(error) for place in (".json", "manifest", "tokens.zarr", "rejects/")):
                self.problems.append(f"{name}: refused without naming a file: {error}")
        except BaseException as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if same(answer, expected):
                self.right += 1
            else:
                self.problems.append(f"{name}: wrong")

    def read(self, open_store: Callable[[], TokenStore], expected: Contents) -> None:
        """Ask everything of a store that is opened once, or of one opened anew where that is refused."""
        opened: list[TokenStore] = []
        self.ask("opening", lambda: bool(opened.append(open_store())), False)
        for store in opened:
            for name, question in QUESTIONS.items():
                self.ask(name, lambda question=question, store=store: question(store), expected[name])

    def command(self, *arguments: str) -> Any:
        """Run a command in this process; returns its exit status and what it printed on stdout."""
        result = CliRunner().invoke(cli.main, arguments)
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            self.problems.append(f"{arguments[0]}: {type(error).__name__}: {error}")
        if result.exit_code and not result.output.strip():
            self.problems.append(f"{arguments[0]}: exit status {result.exit_code} without a word")
        return result.exit_code, result.stdout


def same(answer: Any, expected: Any) -> bool:
    """Whether two answers are equal, in dtype and shape, too."""
    if isinstance(expected, np.ndarray):
        return (
            isinstance(answer, np.ndarray)
            and (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
            and np.array_equal(answer, expected)
        )
    return bool(answer == expected)


@contextmanager
def folders_as_object_stores() -> Iterator[None]:
    """Let URLs of folders be opened as object stores are."""
    schemes, files_at = clients.SCHEMES, reader_module.files_at
    clients.SCHEMES = (*schemes, "file")
    reader_module.files_at = objects.ObjectFiles
    try:
        yield
    finally:
        clients.SCHEMES, reader_module.files_at = schemes, files_at


def status_of(reading: Reading, *options: str) -> None:
    """`vqtok status`: whatever is damaged, the rest is shown."""
    exit_status, output = reading.command("status", "--json", *options)
    if exit_status in (0, 1) and output:
        json.loads(output)
