"""`vqtok report`: its figures are those that anybody can compute from the store."""

import json
from pathlib import Path

import pytest
from fixtures_store import MIXED, ROWS, Job, save_tiny_tokenizer, vqtok, write_shard

from pipeline.errors import IdentityMismatch, IncompleteStore
from pipeline.jobs.reporting import job as report

pytest_plugins = ["fixtures_store", "fixtures_report"]


def test_a_report_is_made_once_for_a_content(damageable: Job) -> None:
    first = report.run(damageable.config())
    path = Path(first.html)
    written = path.stat().st_mtime_ns
    assert report.run(damageable.config()) == first
    assert path.stat().st_mtime_ns == written
    assert report.run(damageable.config("tokenize.batch_size=2")).images_rebuilt < first.images_rebuilt
    assert report.run(damageable.config()) == first
    write_shard(damageable.source / "train-0005.tar", [("new", MIXED["grey"][0])])
    assert damageable.run().complete
    second = report.run(damageable.config())
    assert (second.written, second.content_digest) == (ROWS + 1, damageable.digest)
    assert json.loads((path.parent / "report.json").read_text())["written"] == ROWS + 1


def test_a_damaged_cache_is_made_anew(damageable: Job) -> None:
    first = report.run(damageable.config())
    cache = Path(first.html).with_name("report.json")
    cache.write_text("{")
    assert report.run(damageable.config()) == first
    assert json.loads(cache.read_text())["written"] == ROWS


def test_an_unfinished_store_has_no_report(job: Job) -> None:
    with pytest.raises(IncompleteStore, match="not finished; run vqtok tokenize first"):
        report.run(job.config())


def test_a_report_is_not_made_with_another_tokenizer(finished: Job, made_report: report.Report, tmp_path: Path) -> None:
    other = save_tiny_tokenizer(tmp_path / "other", seed=1)
    with pytest.raises(IdentityMismatch, match=r"tokenizer\.weights: .* here, .* there"):
        report.run(finished.config(f"tokenizer.path={other}"))


def test_the_command_prints_the_figures(finished: Job, made_report: report.Report) -> None:
    done = vqtok("report", "--config", finished.file, folder=finished.output).wait()
    assert (done.status, done.out, done.err) == (0, f"{made_report}\n", "")
