"""What a report is made of: images that are rebuilt from the store, beside their originals."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_store import BATCH_SIZE, COLLECTION, MIXED, REJECTED, ROWS, Job, Sample, make_job, vqtok, write_shard
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.errors import ConfigError, SourceError, StoreError
from pipeline.jobs.originals import images_of_rows
from pipeline.jobs.reporting import job as report
from pipeline.jobs.reporting import making
from pipeline.models.tokenizers.pixels import to_pixels
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.batches import ImageBatch
from pipeline.source.find import part_name
from pipeline.source.images.transform import ImageTransform
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_report"]


def test_psnr_is_that_of_the_first_batch_of_every_part(made_report: report.Report, finished: Job) -> None:
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
    assert made_report.images_rebuilt == images
    assert made_report.psnr == pytest.approx(10 * math.log10(255**2 / torch.stack(errors).mean().item()), abs=1e-3)


def test_a_place_that_cannot_be_written_is_told_before_images_are_rebuilt(finished: Job, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"store-report: the report, .* beside the store, cannot be written: .* is a file"
    ):
        making.make_report(finished.config(), tmp_path / "file" / "store-report", "basis")


def test_a_report_is_written_into_no_other_folder(finished: Job, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store-report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="store-report: is a link, and a report is written into no other folder"):
        making.make_report(finished.config(), tmp_path / "store-report", "basis")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_originals_that_are_decoded_on_a_device_stand_beside_what_is_rebuilt(
    finished: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nvJPEG leaves them: on a device, and here without values."""

    def on_a_device(*arguments: Any) -> ImageBatch:
        batch = images_of_rows(*arguments)
        with FakeTensorMode(allow_non_fake_inputs=True):
            return dataclasses.replace(batch, img_B3HW=batch.img_B3HW.to("cuda"))

    monkeypatch.setattr(making, "images_of_rows", on_a_device)
    rebuilt = making._rebuild(finished.config(), TokenStore(finished.store), [])
    assert rebuilt is not None
    originals_B3HW, reconstructions_B3HW = rebuilt
    assert originals_B3HW.device.type == reconstructions_B3HW.device.type == "cpu"
    assert originals_B3HW.shape == reconstructions_B3HW.shape


def test_of_several_views_all_are_rebuilt_by_turns(collection: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    """Of the first image its centre, of the second the mirror image, and so on."""
    job = make_job(tmp_path / "job", collection, tokenizer_folder, {"image.views": "flip"})
    assert job.run().complete
    config, store = job.config(), TokenStore(job.store)
    transform, tokenizer = ImageTransform(config.image), load_tokenizer(config.tokenizer.path, "quadrants")
    errors = []
    for path, start in zip(sorted(COLLECTION, key=part_name), store.part_starts.tolist(), strict=False):
        samples = [sample for sample in COLLECTION[path] if sample[0] not in REJECTED]
        for offset, (key, members) in enumerate(samples[: BATCH_SIZE // 2]):
            data = next(data for name, data in members.items() if name[-3:] in ("jpg", "png"))
            (shots,) = transform.many([data], [key])
            assert isinstance(shots, list)
            tokens = store.read([start + offset], view=offset % 2).idx_Bl
            rebuilt = to_pixels(tokenizer.decode(tokens, store.geometry.grid), tokenizer.normalization)[0]
            errors.append((shots[offset % 2].img_3HW.double() - rebuilt.double()).square())
    made = report.run(config)
    assert made.images_rebuilt == len(errors)
    assert made.psnr == pytest.approx(10 * math.log10(255**2 / torch.stack(errors).mean().item()), abs=1e-3)
    assert made.tokens == ROWS * 2 * 24


def test_a_layout_that_cannot_be_decoded_has_figures_and_no_picture(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", collection, tokenizer_folder, {"tokenize.layout": "diagonal"})
    assert job.run().complete
    made = report.run(job.config())
    assert (made.psnr, made.picture, made.images_rebuilt, made.written) == (None, None, 0, ROWS)
    assert "none: the tokens cannot be decoded" in str(made)
    assert "<img" not in Path(made.html).read_text()


def test_a_report_needs_the_source(damageable: Job, tmp_path: Path) -> None:
    write_shard(tmp_path / "other/x.tar", [("x", MIXED["grey"][0])])
    with pytest.raises(ConfigError, match=r"source\.shards: no image of these source shards is in"):
        report.run(damageable.config(f"source.shards={tmp_path}/other/*.tar", "source.base=null"))


@pytest.mark.parametrize("samples", [[], COLLECTION["train-0001.tar"][:2], [("x", {"jpg": b"no image"})]])
def test_a_source_shard_that_was_replaced_is_named(damageable: Job, samples: list[Sample]) -> None:
    write_shard(damageable.source / "train-0001.tar", samples)
    with pytest.raises(SourceError, match=r"train-0001\.tar: not the images that were tokenized: it was replaced"):
        report.run(damageable.config())


def test_a_damaged_part_is_named_and_left_out(damageable: Job) -> None:
    part = part_name("train-0001.tar")
    (chunk,) = damageable.store.glob(f"tokens.zarr/parts/{part}.*/tokens/c/0/0")
    chunk.write_bytes(chunk.read_bytes()[:-1])
    (rejects,) = damageable.store.glob(f"rejects/{part_name('train-0003.tar')}.*")
    rejects.write_text("[]")
    made = report.run(damageable.config())
    for path in (chunk.parents[2], rejects):
        assert [message for message in made.damaged if str(path) in message]
    assert made.psnr is not None
    assert made.written == ROWS
    assert f"rejects/{rejects.name}: a line is no reject" in str(made)
    done = vqtok("report", "--config", damageable.file, folder=damageable.output).wait()
    assert (done.status, "a line is no reject" in done.out) == (1, True)
