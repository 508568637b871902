"""`vqtok report`: its figures are those that anybody can compute from the store."""

import base64
import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_store import (
    BATCH_SIZE,
    COLLECTION,
    IMAGE_SIZE,
    MIXED,
    REJECTED,
    ROWS,
    Job,
    Sample,
    make_job,
    save_tiny_tokenizer,
    vqtok,
    write_shard,
)
from PIL import Image

from pipeline.errors import ConfigError, IdentityMismatch, IncompleteStore, SourceError
from pipeline.jobs.reporting import job as report
from pipeline.models.tokenizers.pixels import to_pixels
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.find import part_name
from pipeline.source.images.transform import ImageTransform
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store"]


@pytest.fixture(scope="module")
def made(finished: Job) -> report.Report:
    return report.run(finished.config())


def test_counts_and_sizes_are_those_of_the_store(made: report.Report, finished: Job) -> None:
    tokens = torch.cat(TokenStore(finished.store).read(slice(None)).idx_Bl, dim=1).numpy()
    assert (made.written, made.rejected, made.tokens) == (ROWS, len(REJECTED), tokens.size)
    attempts = [f"{record['part']}.{record['attempt']}" for record in finished.commits.values()]
    files = [path for name in attempts for path in (finished.store / "tokens.zarr/parts" / name).rglob("*")]
    assert made.bytes == sum(path.stat().st_size for path in files if path.is_file())
    counts = np.bincount(tokens.reshape(-1), minlength=16)
    assert (made.vocab_size, made.codes_used) == (16, int((counts > 0).sum()))
    shares = counts[counts > 0] / counts.sum()
    assert made.entropy_bits == pytest.approx(-(shares * np.log2(shares)).sum())
    assert made.content_digest == finished.digest
    assert f"{8 * made.bytes / tokens.size:.2f} on disk, {made.entropy_bits:.2f} zero-order entropy, 4.00 for" in str(
        made
    )


def test_reasons_of_rejects_are_counted(made: report.Report) -> None:
    assert sum(made.reject_reasons.values()) == len(REJECTED)
    assert {reason.partition(":")[0] for reason in made.reject_reasons} == set(REJECTED.values())


def test_psnr_is_that_of_the_first_batch_of_every_part(made: report.Report, finished: Job) -> None:
    config, store = finished.config(), TokenStore(finished.store)
    transform, tokenizer = ImageTransform(config.image), load_tokenizer(config.tokenizer.path, "quadrants")
    errors, row, images = [], 0, 0
    for path in sorted(COLLECTION, key=part_name):
        samples = [sample for sample in COLLECTION[path] if sample[0] not in REJECTED]
        for offset, (_, members) in enumerate(samples[:BATCH_SIZE]):
            data = next(data for name, data in members.items() if name[-3:] in ("jpg", "png"))
            tokens = store.read([row + offset]).idx_Bl
            rebuilt = to_pixels(tokenizer.decode(tokens, store.geometry.grid), tokenizer.normalization)[0]
            errors.append((transform(data).double() - rebuilt.double()).square())
            images += 1
        row += len(samples)
    assert made.images_rebuilt == images
    assert made.psnr == pytest.approx(10 * math.log10(255**2 / torch.stack(errors).mean().item()), abs=1e-3)


def test_the_files_are_where_the_report_says(made: report.Report, finished: Job) -> None:
    assert made.html == f"{finished.store}-report/report.html"
    assert made.picture is not None
    picture = Image.open(made.picture)
    assert picture.width == 8 * (IMAGE_SIZE[1] + 2) + 2  # eight columns, two pixels between them
    page = Path(made.html).read_text()
    (embedded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(embedded) == Path(made.picture).read_bytes()
    for _, value in made.figures():
        assert html.escape(value) in page
    assert html.escape(made.usage) in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # opens with nothing beside it


def test_the_printed_lines_load_the_store(made: report.Report) -> None:
    names: dict[str, object] = {}
    exec(made.usage, names)
    assert isinstance(names["x_BLC"], torch.Tensor)
    assert names["x_BLC"].shape[1:] == (24, 4)
    assert all(line in str(made) for line in made.usage.splitlines())


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


def test_a_layout_that_cannot_be_decoded_has_figures_and_no_picture(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", collection, tokenizer_folder, {"tokenize.layout": "diagonal"})
    assert job.run().complete
    made = report.run(job.config())
    assert (made.psnr, made.picture, made.images_rebuilt, made.written) == (None, None, 0, ROWS)
    assert "none: the layout does not cover the image" in str(made)
    assert "<img" not in Path(made.html).read_text()


def test_an_unfinished_store_has_no_report(job: Job) -> None:
    with pytest.raises(IncompleteStore, match="not finished; run vqtok tokenize first"):
        report.run(job.config())


def test_a_report_is_not_made_with_another_tokenizer(finished: Job, made: report.Report, tmp_path: Path) -> None:
    other = save_tiny_tokenizer(tmp_path / "other", seed=1)
    with pytest.raises(IdentityMismatch, match=r"tokenizer\.weights: .* here, .* there"):
        report.run(finished.config(f"tokenizer.path={other}"))


def test_a_report_needs_the_source(damageable: Job, tmp_path: Path) -> None:
    write_shard(tmp_path / "other/x.tar", [("x", MIXED["grey"][0])])
    with pytest.raises(ConfigError, match=r"source\.shards: no image of these source shards is in"):
        report.run(damageable.config(f"source.shards={tmp_path}/other/*.tar", "source.base=null"))


@pytest.mark.parametrize("samples", [[], COLLECTION["train-0001.tar"][:2], [("x", {"jpg": b"no image"})]])
def test_a_source_shard_that_was_replaced_is_named(damageable: Job, samples: list[Sample]) -> None:
    write_shard(damageable.source / "train-0001.tar", samples)
    with pytest.raises(SourceError, match=r"train-0001\.tar: not the images that were tokenized: it was replaced"):
        report.run(damageable.config())


def test_a_store_of_nothing_but_rejects_has_a_report(tokenizer_folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "source/train-0.tar", [("a<b", {"jpg": b"<script>"})])
    job = make_job(tmp_path / "job", tmp_path / "source", tokenizer_folder, {"source.shards": f"{tmp_path}/source/*"})
    assert job.run().complete
    made = report.run(job.config())
    assert (made.written, made.rejected, made.tokens, made.entropy_bits) == (0, 1, 0, 0)
    assert "none: there are no rows" in str(made)
    assert "-0.00" not in str(made)
    page = Path(made.html).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_command_prints_the_figures(finished: Job, made: report.Report) -> None:
    done = vqtok("report", "--config", finished.file, folder=finished.output).wait()
    assert (done.status, done.out, done.err) == (0, f"{made}\n", "")
