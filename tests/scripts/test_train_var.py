"""The example of next-scale prediction: no scale sees itself, samples are the model's own, runs resume exactly."""

import math
from pathlib import Path

import pytest
import torch
import train_var
from fixtures_examples import SIDES, Script, metrics
from fixtures_store import Job, store_of_rows
from PIL import Image
from torch.nn import functional as F
from training.drawing import Drawing
from training.transformer import Size

from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_examples"]

VAR = Script("train_var")
TASK = train_var.NextScale()
LENGTHS = tuple(side * side for side in SIDES)


@pytest.fixture(scope="module")
def store(scales: Job) -> TokenStore:
    return TokenStore(scales.store)


@pytest.fixture
def model(store: TokenStore) -> torch.nn.Module:
    """A model that is sure of something."""
    torch.manual_seed(0)
    model = TASK.model(store, num_classes=3, size=Size(dim=16, depth=2, heads=2)).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def test_a_scale_depends_on_the_coarser_ones_alone(store: TokenStore, model: torch.nn.Module) -> None:
    batch, class_B = store.read([0, 1]), torch.tensor([0, 3])
    idx_Bl = [block.clone() for block in batch.idx_Bl]
    logits_Bl = model(store.idxBl_to_var_input(idx_Bl), class_B).split(LENGTHS, dim=1)
    assert [block.shape for block in logits_Bl] == [(2, length, 16) for length in LENGTHS]
    for changed in range(len(SIDES)):
        other_Bl = [block.clone() for block in idx_Bl]
        other_Bl[changed] = (other_Bl[changed] + 5) % 16
        other = model(store.idxBl_to_var_input(other_Bl), class_B).split(LENGTHS, dim=1)
        same = [a.isclose(b, atol=1e-5).all().item() for a, b in zip(logits_Bl, other, strict=True)]
        assert same == [scale <= changed for scale in range(len(SIDES))]
    nats_BL = TASK.nats(model, store, batch, class_B, seed=())
    expected = F.cross_entropy(torch.cat(logits_Bl, dim=1).flatten(0, 1), batch.tokens.flatten())
    assert nats_BL.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_samples_are_what_the_model_says_of_their_coarser_scales(store: TokenStore, model: torch.nn.Module) -> None:
    """With the likeliest code alone to draw from, teacher forcing on a sample gives the sample back."""
    class_B = torch.tensor([0, 1, 2, 3])
    idx_Bl = TASK.sample(model, store, class_B, Drawing(temperature=1.0, top_k=1, seed=0))
    likeliest_BL = model(store.idxBl_to_var_input(idx_Bl), class_B).argmax(dim=2)
    assert torch.equal(likeliest_BL, torch.cat(idx_Bl, dim=1))
    assert len(set(torch.cat(idx_Bl, dim=1).flatten().tolist())) > 2
    drawn, again, other = (TASK.sample(model, store, class_B, Drawing(2.0, 16, seed)) for seed in (0, 0, 1))
    assert all(map(torch.equal, drawn, again))
    assert not all(map(torch.equal, drawn, other))


def test_it_learns_and_draws_images_scale_by_scale(scales: Job, store: TokenStore, tmp_path: Path) -> None:
    output = tmp_path / "var"
    done = VAR.trained("--config", scales.file, "--output", output, "--steps", "60", "--every", "30", folder=tmp_path)
    first, last = metrics(output)
    names = [f"{side}x{side}" for side in SIDES]
    assert "of each scale by itself: 1x1 " in done.out
    assert last["held_out"] < first["held_out"] < math.log2(16) + 0.1
    mean = sum(last[name] * length for name, length in zip(names, LENGTHS, strict=True)) / sum(LENGTHS)
    assert last["held_out"] == pytest.approx(mean, rel=1e-4)
    with Image.open(output / "samples.png") as picture:
        assert picture.size == (8 * (16 + 2) + 2, len(SIDES) * (16 + 2) + 2)
        assert len(picture.getcolors(100_000) or []) > 10


def test_a_killed_run_resumes_to_the_same_bits(scales: Job, tmp_path: Path) -> None:
    """In the middle of the first epoch, and on into the second."""
    VAR.check_kill(tmp_path, "--config", scales.file, "--steps", "8", every=2, renames=2)


def test_stores_without_scales_are_refused(tmp_path: Path) -> None:
    store = store_of_rows(tmp_path / "store", [40])
    message = VAR.refused("--store", store, folder=tmp_path, status=2)
    assert "the rule 'lookup'" in message
    assert "configs/sample-var.yaml" in message
