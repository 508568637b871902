"""bin: read back as the data loader of llm.c reads it."""

from pathlib import Path

import numpy as np
import pytest
from fixtures_exports import ROWS, export, grids, store_to_export, vqtok_export

pytest_plugins = ["fixtures_exports"]


def tokens_of(file: Path) -> list[int]:
    data = file.read_bytes()
    magic, version, count = np.frombuffer(data, "<i4", 256)[:3].tolist()
    assert (magic, version, len(data)) == (20240520, 1, 256 * 4 + 2 * count)
    return np.frombuffer(data, "<u2", offset=1024).tolist()


@pytest.mark.parametrize(("options", "files"), [((), 1), (("--rows-per-file", "10"), 4)])
def test_files(exported_store: Path, tmp_path: Path, options: tuple[str, ...], files: int) -> None:
    out = export(exported_store, tmp_path / "out", "--format", "bin", "--bos", "50256", *options)
    found = sorted(out.glob("*.bin"))
    assert [file.name for file in found] == [f"part-{number:05d}.bin" for number in range(files)]
    rows = [[50256, *row] for row in grids(exported_store)[:, 0].tolist()]
    assert [token for file in found for token in tokens_of(file)] == [token for row in rows for token in row]
    assert len(rows) == ROWS


def test_a_vocabulary_that_does_not_fit(exported_store: Path, tmp_path: Path) -> None:
    large = store_to_export(tmp_path / "large", vocab_size=65_537, token_dtype="uint32")
    for store, options in ((large, ()), (exported_store, ("--offset", "65000"))):
        done = vqtok_export(store, tmp_path / "out", "--format", "bin", *options)
        assert done.exit_code == 2
        assert "the tokens (--offset): ids up to 65," in done.stderr
        assert "the format bin holds those up to 65,535" in done.stderr


def test_more_tokens_in_a_file_than_its_header_can_tell(exported_store: Path, tmp_path: Path) -> None:
    done = vqtok_export(exported_store, tmp_path / "out", "--format", "bin", "--rows-per-file", "200000000")
    assert done.exit_code == 2
    assert "--rows-per-file: 200,000,000 rows of 15 tokens" in done.stderr
