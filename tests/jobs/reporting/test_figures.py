"""The figures of a report, and the lines that load its store."""

import numpy as np
import pytest
import torch
from fixtures_store import REJECTED, ROWS, Job

from pipeline.jobs.reporting import job as report
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_report"]


def test_counts_and_sizes_are_those_of_the_store(made_report: report.Report, finished: Job) -> None:
    tokens = torch.cat(TokenStore(finished.store).read(slice(None)).idx_Bl, dim=1).numpy()
    assert (made_report.written, made_report.rejected, made_report.tokens) == (ROWS, len(REJECTED), tokens.size)
    attempts = [f"{record['part']}.{record['attempt']}" for record in finished.commits.values()]
    files = [path for name in attempts for path in (finished.store / "tokens.zarr/parts" / name).rglob("*")]
    assert made_report.bytes == sum(path.stat().st_size for path in files if path.is_file())
    counts = np.bincount(tokens.reshape(-1), minlength=16)
    assert (made_report.vocab_size, made_report.codes_used) == (16, int((counts > 0).sum()))
    shares = counts[counts > 0] / counts.sum()
    assert made_report.entropy_bits == pytest.approx(-(shares * np.log2(shares)).sum())
    assert made_report.content_digest == finished.digest
    per_token, entropy = 8 * made_report.bytes / tokens.size, made_report.entropy_bits
    assert f"{per_token:.2f} on disk, {entropy:.2f} zero-order entropy, 4.00 for" in str(made_report)


def test_reasons_of_rejects_are_counted(made_report: report.Report) -> None:
    assert sum(made_report.reject_reasons.values()) == len(REJECTED)
    assert {reason.partition(":")[0] for reason in made_report.reject_reasons} == set(REJECTED.values())


def test_the_printed_lines_load_the_store(made_report: report.Report) -> None:
    names: dict[str, object] = {}
    exec(made_report.usage, names)
    assert isinstance(names["x_BLC"], torch.Tensor)
    assert names["x_BLC"].shape[1:] == (24, 4)
    assert all(line in str(made_report) for line in made_report.usage.splitlines())
