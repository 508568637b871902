"""The example that fills in hidden tokens: what is hidden is not seen, samples grow, runs resume exactly."""

import math
from pathlib import Path

import pytest
import torch
import train_masked
from fixtures_examples import Script, metrics
from fixtures_store import Job
from PIL import Image
from torch import Tensor, nn
from training.drawing import Drawing
from training.transformer import Size

from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_examples"]

MASKED = Script("train_masked")
TASK = train_masked.HiddenTokens(rounds=4, noise=1.0)


@pytest.fixture(scope="module")
def store(random_store: Path) -> TokenStore:
    return TokenStore(random_store)


@pytest.fixture
def model(store: TokenStore) -> nn.Module:
    """A model that is sure of something."""
    torch.manual_seed(0)
    model = train_masked.MaskedTransformer(store, num_classes=3, size=Size(dim=16, depth=2, heads=2)).eval()
    nn.init.normal_(model.transformer.head.weight)
    return model


def test_logits_depend_on_what_is_shown_alone(store: TokenStore, model: nn.Module) -> None:
    idx_BL, class_B = store.read([0, 1]).tokens, torch.tensor([0, 3])
    hidden_BL = torch.tensor([[True, False, True, False, False, False, True, False]] * 2)
    logits_BLK = model(store.idxBl_to_var_input([idx_BL]), class_B, hidden_BL)
    for position in range(8):
        other_BL = idx_BL.clone()
        other_BL[:, position] = (other_BL[:, position] + 5) % 16
        other_BLK = model(store.idxBl_to_var_input([other_BL]), class_B, hidden_BL)
        assert other_BLK.isclose(logits_BLK, atol=1e-5).all() == hidden_BL[0, position]


def test_what_is_hidden_depends_on_seed_and_row_alone(store: TokenStore) -> None:
    whole = store.read(range(40))
    for cosine, mean in ((True, 2 / math.pi), (False, 1 / 2)):
        hidden_BL = train_masked.hide(whole, (0, 7), cosine)
        assert torch.equal(hidden_BL[[5, 30]], train_masked.hide(store.read([5, 30]), (0, 7), cosine))
        assert not torch.equal(hidden_BL, train_masked.hide(whole, (0, 8), cosine))
        counts_B = hidden_BL.sum(dim=1)
        assert counts_B.min() >= 1
        # At least one, and rounded up: half a token more in the mean.
        assert counts_B.float().mean().item() / 8 == pytest.approx(mean + 0.5 / 8, abs=0.15)


def test_of_a_model_that_knows_nothing_every_token_costs_the_same(store: TokenStore) -> None:
    """Whatever is hidden: the weights of the tokens are right in training and for held-out images."""
    torch.manual_seed(0)
    model = train_masked.MaskedTransformer(store, num_classes=3, size=Size(dim=16, depth=1, heads=2))
    nn.init.zeros_(model.transformer.head.bias)
    batch, class_B = store.read(range(6)), torch.zeros(6, dtype=torch.int64)
    assert TASK.nats(model, store, batch, class_B, (0, 1)).mean().item() == pytest.approx(math.log(16), rel=1e-5)
    nats_BL = TASK.held_out_nats(model, store, batch, class_B)
    assert nats_BL.mean(dim=1).tolist() == pytest.approx([math.log(16)] * 6, rel=1e-5)


class Watched(nn.Module):
    """Notes what a model is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_BLC: Tensor, class_B: Tensor, hidden_BL: Tensor) -> Tensor:
        self.given.append((x_BLC, hidden_BL))
        return self.model(x_BLC, class_B, hidden_BL)


@pytest.mark.parametrize("rounds", [1, 4, 20])
def test_samples_grow_and_what_stays_is_not_drawn_again(store: TokenStore, model: nn.Module, rounds: int) -> None:
    """Also in more rounds than there are tokens."""
    watched, class_B = Watched(model), torch.tensor([0, 1, 3])
    task, drawing = train_masked.HiddenTokens(rounds, noise=1.0), Drawing(1.0, 16, seed=0)
    idx_Bl = task.sample(watched, store, class_B, drawing)
    assert [tuple(idx_BL.shape) for idx_BL in idx_Bl] == [(3, 3), (3, 5)]
    x_BLC = store.idxBl_to_var_input(idx_Bl)
    hidden = [hidden_BL.sum(dim=1).tolist() for _, hidden_BL in watched.given]
    assert hidden == [[int(math.cos(math.pi / 2 * done / rounds) * 8)] * 3 for done in range(rounds)]
    for given_BLC, hidden_BL in watched.given:
        assert torch.equal(given_BLC[~hidden_BL], x_BLC[~hidden_BL])
    again = task.sample(model, store, class_B, drawing)
    assert all(map(torch.equal, idx_Bl, again))


def test_it_learns_and_draws_a_picture(finished: Job, tmp_path: Path) -> None:
    output = tmp_path / "masked"
    MASKED.trained("--config", finished.file, "--output", output, "--steps", "60", "--every", "30", folder=tmp_path)
    first, last = metrics(output)
    assert last["train"] < first["train"] < math.log2(16) + 0.1
    assert last["held_out"] < math.log2(16)
    with Image.open(output / "samples.png") as picture:
        assert len(picture.getcolors(100_000) or []) > 10


def test_a_killed_run_resumes_to_the_same_bits(finished: Job, tmp_path: Path) -> None:
    """In the middle of the first epoch, and on into the second."""
    MASKED.check_kill(tmp_path, "--config", finished.file, "--steps", "8", every=2, renames=2)


def test_stores_of_scales_are_refused(scales: Job, tmp_path: Path) -> None:
    assert "the rule 'multiscale'" in MASKED.refused("--config", scales.file, folder=tmp_path, status=2)
