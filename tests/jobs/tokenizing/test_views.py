"""Jobs whose images have several views: each is the part of the picture that the store says, in every process."""

import hashlib
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SIDES, save_var
from damage import SHARD, commit_in_its_place, verified
from fixtures_store import COLLECTION, IMAGE_SIZE, REJECTED, ROWS, Halt, Job, make_job
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.jobs.importing import job as importing
from pipeline.loader import TokenLoader
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.find import part_name
from pipeline.source.images.decoding import decode_rgb
from pipeline.store import TokenStore
from pipeline.store.arrays.storage import Views
from pipeline.store.writing.writer import EncodedShard

pytest_plugins = ["fixtures_store"]

HEIGHT, WIDTH = IMAGE_SIZE

Expected = list[tuple[tuple[int, int, int, int], bool]]


def flips(key: str, height: int, width: int) -> Expected:
    box = (height - HEIGHT) // 2, (width - WIDTH) // 2, HEIGHT, WIDTH
    return [(box, False), (box, True)]


def ten_crops(key: str, height: int, width: int) -> Expected:
    """Corners and centre of a rectangle of 20 x 30 in the middle; then what is there in the mirror image."""
    top, left = (height - 20) // 2, (width - 30) // 2
    right, middle = left + 6, left + 3
    plain = [(top, left), (top, right), (top + 4, left), (top + 4, right), (top + 2, middle)]
    mirrored = [(top, right), (top, left), (top + 4, right), (top + 4, left), (top + 2, middle)]
    return [((*at, HEIGHT, WIDTH), flip) for corners, flip in ((plain, False), (mirrored, True)) for at in corners]


def random_crops(key: str, height: int, width: int) -> Expected:
    """Of images that cover 32 x 48, the largest crop; sides from 0.5 to 0.9 of it."""
    found: Expected = []
    for view in range(3):
        digest = hashlib.sha256(f"5/{view}/{key}".encode()).digest()
        words = [int.from_bytes(digest[at : at + 8], "little") for at in (0, 8, 16, 24)]
        tall = 16 + words[0] * (29 - 16 + 1) // 2**64
        wide = round(tall * 1.5)
        top, left = words[1] * (height - tall + 1) // 2**64, words[2] * (width - wide + 1) // 2**64
        found.append(((top, left, tall, wide), words[3] >= 2**63))
    return found


# Settings; what a resized image covers; the views of one; samples in a batch of at most 8 images.
KINDS: dict[str, tuple[dict[str, Any], tuple[int, int], Any, int]] = {
    "flip": ({"image.views": "flip"}, IMAGE_SIZE, flips, 4),
    "ten_crop": ({"image.views": "ten_crop", "image.resize_to": 20}, (20, 30), ten_crops, 1),
    "random": ({"image.views": {"random": 3, "scale": [0.5, 0.9], "seed": 5}}, (32, 48), random_crops, 2),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def viewed(kind: str, collection: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job. Read only."""
    job = make_job(tmp_path_factory.mktemp(kind), collection, tokenizer_folder, KINDS[kind][0])
    assert job.run().complete
    return job


def resized(data: bytes, covered: tuple[int, int]) -> Tensor:
    img_3HW = decode_rgb(data, 10**6)
    height, width = img_3HW.shape[1:]
    scale = max(covered[0] / height, covered[1] / width)
    size = [round(height * scale), round(width * scale)]
    return scaled(img_3HW, size)


def scaled(img_3HW: Tensor, size: list[int]) -> Tensor:
    if list(img_3HW.shape[1:]) == size:
        return img_3HW
    pixels: Tensor = transforms.resize(img_3HW, size, InterpolationMode.BICUBIC, antialias=True)
    return pixels


def rows_of(path: str) -> list[tuple[str, bytes]]:
    """Keys and images of the rows that a source shard becomes."""
    samples = [sample for sample in COLLECTION[path] if sample[0] not in REJECTED]
    return [(key, next(m[name] for name in m if name[-3:] in ("jpg", "png"))) for key, m in samples]


def test_tokens_are_those_of_each_view(viewed: Job, kind: str) -> None:
    """Every view of every row, from the description of the views; in the batches in which they are encoded."""
    _, covered, views_of, at_once = KINDS[kind]
    store, tokenizer = TokenStore(viewed.store), load_tokenizer(viewed.tokenizer, "quadrants")
    count = store.num_views
    assert (len(store), count) == (ROWS, len(views_of("", *covered)))

    def expected(path: str) -> Iterator[tuple[Expected, Tensor]]:
        rows = rows_of(path)
        for start in range(0, len(rows), at_once):
            views, images = [], []
            for key, data in rows[start : start + at_once]:
                img_3HW = resized(data, covered)
                views.append(views_of(key, *img_3HW.shape[1:]))
                for (top, left, height, width), flip in views[-1]:
                    crop = scaled(img_3HW[:, top : top + height, left : left + width], [HEIGHT, WIDTH])
                    images.append(crop.flip(-1) if flip else crop)
            padded = torch.zeros((at_once * count, 3, HEIGHT, WIDTH), dtype=torch.uint8)
            padded[: len(images)] = torch.stack(images)
            pieces = [normalize_pixels(piece, tokenizer.normalization) for piece in padded.split(8)]
            tokens = torch.cat([torch.cat(tokenizer.encode(piece), dim=1) for piece in pieces])
            yield from zip(views, tokens.reshape(at_once, count, -1), strict=False)

    found = [row for path in sorted(COLLECTION, key=part_name) for row in expected(path)]
    assert torch.equal(store.read(slice(None), view="all").tokens.long(), torch.stack([tokens for _, tokens in found]))
    recorded = store.views_of(np.arange(ROWS))
    assert recorded.box.tolist() == [[list(box) for box, _ in views] for views, _ in found]
    assert recorded.flip.tolist() == [[flip for _, flip in views] for views, _ in found]
    assert {True, False} <= {flip for views, _ in found for _, flip in views}


def test_commits_count_samples_and_the_codes_of_all_views(viewed: Job) -> None:
    store = TokenStore(viewed.store)
    for record in viewed.commits.values():
        assert record["counts"] == {"read": record["seen"], "decode": record["seen"], "encode": record["written"]}
        assert record["arrays"]["tokens"]["shape"] == [record["written"], store.num_views, 24]
    assert store.code_counts.sum() == ROWS * store.num_views * 24
    birth = json.loads((viewed.store / "store.json").read_text())
    assert ("views" in birth["features"], birth["views"]) == (True, store.num_views)


def test_a_store_with_views_verifies(viewed: Job) -> None:
    result = verified(viewed, "tokenize.batch_size=5", rate=1)
    assert (result.problems, result.warnings) == ([], [])
    assert (result.rows_encoded_again, result.rows_that_differ, result.token_agreement) == (ROWS, 0, 1)


@pytest.mark.parametrize("kind", ["random"], indirect=True)
def test_killed_and_gone_on_with_by_several_processes(viewed: Job, kind: str, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", viewed.source, viewed.tokenizer, KINDS[kind][0])
    assert job.start(halt=Halt("os.link", "/commits/", 3)).wait().status == -signal.SIGKILL
    assert len(job.commits) == 2
    assert [process.wait().status for process in (job.start(), job.start())] == [0, 0]
    assert job.digest == viewed.digest


def test_views_in_several_scales_are_resumed_too(collection: Path, tmp_path: Path) -> None:
    """The tokenizer of VAR, whose blocks are scales, over images and their mirrors."""
    tokenizer = tmp_path / "tokenizer"
    importing.run("var", str(save_var(tmp_path / "vae.pth")), tokenizer, {"patch-nums": SIDES})
    changes = {"image.size": [32, 32], "image.views": "flip"}
    whole = make_job(tmp_path / "whole", collection, tokenizer, changes)
    assert whole.run().complete
    job = make_job(tmp_path / "job", collection, tokenizer, changes)
    assert job.start(halt=Halt("os.rename", "/tokens.zarr/parts/", 4)).wait().status == -signal.SIGKILL
    assert [process.wait().status for process in (job.start(), job.start())] == [0, 0]
    assert job.digest == whole.digest
    store = TokenStore(job.store)
    batch = next(iter(TokenLoader(store, batch_size=8, views="all")))
    assert [tuple(block.shape) for block in batch.idx_Bl] == [(8, 2, 1), (8, 2, 4)]
    x_BLC = store.idxBl_to_var_input([block.flatten(0, 1) for block in batch.idx_Bl])
    assert x_BLC.shape == (16, 4, store.embedding_dim)


@pytest.mark.parametrize("kind", ["random"], indirect=True)
def test_verify_finds_views_of_another_part_of_the_image(viewed: Job, kind: str, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", viewed.source, viewed.tokenizer, KINDS[kind][0])
    shutil.copytree(viewed.store, job.store)

    def moved(shard: EncodedShard) -> EncodedShard:
        assert shard.views is not None
        box = shard.views.box.copy()
        box[3, 1, 0] += 1
        return replace(shard, views=Views(box, shard.views.flip))

    commit_in_its_place(job, SHARD, moved)
    (problem,) = verified(job, rate=1).problems
    assert "1 of 10 rows differ when encoded again" in problem


@pytest.mark.parametrize("kind", ["flip"], indirect=True)
@pytest.mark.parametrize("place", [0, 2], ids=["above the image", "without rows"])
def test_verify_finds_views_that_are_no_part_of_an_image(viewed: Job, kind: str, tmp_path: Path, place: int) -> None:
    job = make_job(tmp_path / "job", viewed.source, viewed.tokenizer, KINDS[kind][0])
    shutil.copytree(viewed.store, job.store)

    def outside(shard: EncodedShard) -> EncodedShard:
        assert shard.views is not None
        box = shard.views.box.copy()
        box[3, 1, place] = -1
        return replace(shard, views=Views(box, shard.views.flip))

    commit_in_its_place(job, SHARD, outside)
    (problem,) = verified(job).problems
    assert "a view is no part of an image" in problem


def test_the_centre_alone_is_no_view(job: Job, finished: Job) -> None:
    changed = make_job(job.file.parent, job.source, job.tokenizer, {"image.views": "center"})
    assert changed.run().complete
    assert (changed.store / "store.json").read_bytes() == (finished.store / "store.json").read_bytes()
    assert changed.digest == finished.digest
