"""megatron: read back as Megatron's IndexedDataset reads it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_exports import GRID, ROWS, VIEWS, export, grids, vqtok_export, with_labels

from pipeline.jobs.exporting.formats import megatron
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_exports"]


class Indexed:
    """The two files of a data set, as `_IndexReader` and `IndexedDataset` of Megatron-LM take them apart."""

    def __init__(self, folder: Path) -> None:
        index = (folder / "tokens.idx").read_bytes()
        assert index[:9] == b"MMIDIDX\x00\x00"
        assert np.frombuffer(index, "<u8", 1, 9)[0] == 1
        self.dtype: Any = {4: np.int32, 8: np.uint16}[index[17]]
        sequences, documents = np.frombuffer(index, "<u8", 2, 18).tolist()
        self.lengths = np.frombuffer(index, "<i4", sequences, at := 34)
        self.pointers = np.frombuffer(index, "<i8", sequences, at := at + self.lengths.nbytes)
        self.documents = np.frombuffer(index, "<i8", documents, at := at + self.pointers.nbytes)
        assert len(index) == at + self.documents.nbytes
        self.bin = (folder / "tokens.bin").read_bytes()
        assert self.documents[0] == 0 and self.documents[-1] == sequences

    def __getitem__(self, sequence: int) -> np.ndarray:
        return np.frombuffer(self.bin, self.dtype, self.lengths[sequence], self.pointers[sequence])

    @property
    def all(self) -> list[list[int]]:
        assert len(self.bin) == self.lengths.sum() * np.dtype(self.dtype).itemsize
        return [self[number].tolist() for number in range(len(self.lengths))]


def test_tokens_alone(exported_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(megatron, "_PIECE_BYTES", 100)
    monkeypatch.setattr(megatron, "_AT_ONCE", 8)
    found = Indexed(export(exported_store, tmp_path / "out", "--format", "megatron"))
    assert found.dtype == np.uint16
    assert found.all == grids(exported_store)[:, 0].tolist()
    assert found.documents.tolist() == list(range(ROWS + 1))


def test_what_stands_around_the_tokens(exported_store: Path, tmp_path: Path) -> None:
    words = "--format megatron --offset 70000 --bos 1 --eos 2 --eol 3"
    found = Indexed(export(exported_store, tmp_path / "out", *words.split()))
    assert found.dtype == np.int32
    lines = (grids(exported_store)[:, 0] + 70000).reshape(ROWS, *GRID).tolist()
    assert found.all == [[1, *(token for line in image for token in [*line, 3]), 2] for image in lines]


def test_labels_go_before_the_tokens(tmp_path: Path) -> None:
    store = with_labels(tmp_path / "store", 4)
    words = "--format megatron --label-offset 1000 --bos 1010 --eos 1010"
    found = Indexed(export(store, tmp_path / "out", *words.split()))
    tokens = TokenStore(store).read(slice(None)).tokens.long().tolist()
    assert found.all == [[1010, 1004, *row, 1010] for row in tokens]


@pytest.mark.parametrize(("offset", "dtype"), [(64_499, np.uint16), (64_500, np.int32)])
def test_wide_tokens_from_the_vocabulary_on_that_megatron_has_them_from(
    exported_store: Path, tmp_path: Path, offset: int, dtype: type
) -> None:
    out = export(exported_store, tmp_path / "out", "--format", "megatron", "--offset", str(offset))
    assert Indexed(out).dtype == dtype


def test_each_view_is_a_document(store_of_views: Path, tmp_path: Path) -> None:
    found = Indexed(export(store_of_views, tmp_path / "out", "--format", "megatron", "--view", "rows"))
    assert found.all == grids(store_of_views).reshape(ROWS * VIEWS, -1).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--bos 999", "--bos: 999, and the tokens (--offset) take 0 to 999; an id stands for one thing"),
        ("--offset 5 --eos 3 --eol 3", "--eol: 3, and --eos take 3"),
        ("--label-offset 2000", "there are rows without a label"),
        ("--eol 5000 --order blocks", "--eol: tokens in block order have no lines"),
        ("--eos 3000000000", "--eos: ids up to 3,000,000,000, and the format megatron holds those up to 2,147,483,647"),
    ],
)
def test_sequences_that_cannot_be(exported_store: Path, tmp_path: Path, options: str, message: str) -> None:
    done = vqtok_export(exported_store, tmp_path / "out", "--format", "megatron", *options.split())
    assert done.exit_code == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_labels_that_would_be_tokens_are_refused(tmp_path: Path) -> None:
    store = with_labels(tmp_path / "store", 4)
    done = vqtok_export(store, tmp_path / "out", "--format", "megatron", "--label-offset", "995")
    assert "--label-offset: 999, and the tokens (--offset) take 0 to 999" in done.stderr
