"""The options of VectorQuantizer that keep its codebook in use."""

import copy
import math

import pytest
import torch
from torch import Tensor

from pipeline.models import VectorQuantizer

EVERYTHING = {"ema_decay": 0.9, "kmeans_init": True, "revive_after": 3, "cosine": True}


def rows(z_BChw: Tensor) -> Tensor:
    return z_BChw.permute(0, 2, 3, 1).reshape(-1, z_BChw.shape[1])


def clusters(count: int = 16, copies: int = 8) -> Tensor:
    """`count` tight clusters around points far from the origin, as z [1, 2, copies, count]."""
    angles = torch.arange(count) * (2 * torch.pi / count)
    centres_C1K = torch.stack([10 + 3 * angles.cos(), 10 + 3 * angles.sin()])[:, None]
    return (centres_C1K + 0.01 * torch.randn(2, copies, count))[None]


def train(vq: VectorQuantizer, steps: int) -> list[int]:
    """Gradient steps on fresh clusters; the codes that the last batch uses."""
    parameters = [parameter for parameter in vq.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2) if parameters else None
    for _ in range(steps):
        _, loss, indices = vq(clusters())
        if optimizer:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return indices.unique().tolist()


@pytest.mark.parametrize(
    ("options", "buffers"),
    [
        ({}, set()),
        ({"cosine": True}, set()),
        ({"ema_decay": 0.9}, {"ema_count", "ema_sum"}),
        ({"kmeans_init": True}, {"kmeans_done"}),
        ({"revive_after": 5}, {"steps_unused"}),
    ],
)
def test_buffers_exist_only_for_the_options_that_are_on(options: dict[str, float], buffers: set[str]) -> None:
    vq = VectorQuantizer(4, 2, **options)
    assert vq.state_dict().keys() - {"embedding.weight"} == buffers


@pytest.mark.parametrize("options", [{"revive_after": 3}, {"kmeans_init": True}, {"ema_decay": 0.9, "revive_after": 3}])
def test_a_codebook_that_would_collapse_is_kept_in_use(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    assert len(train(VectorQuantizer(16, 2), 60)) == 1  # what the options are for
    torch.manual_seed(0)
    assert len(train(VectorQuantizer(16, 2, **options), 60)) >= 12


def test_the_moving_average_follows_the_formulas_of_the_paper() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(5, 3, ema_decay=0.8)
    torch.nn.init.normal_(vq.embedding.weight)
    vq.ema_sum.copy_(vq.embedding.weight)
    codebook, count, total = vq.embedding.weight.double(), torch.ones(5).double(), vq.ema_sum.double()
    for _ in range(4):
        z_BChw = torch.randn(2, 3, 4, 4, requires_grad=True)
        quantized, loss, indices = vq(z_BChw)
        z_NC = rows(z_BChw.detach()).double()
        nearest = torch.cdist(z_NC, codebook).argmin(dim=1)
        assert torch.equal(indices, nearest)
        torch.testing.assert_close(rows(quantized), codebook[nearest].float())  # the codes before this update
        torch.testing.assert_close(loss, 0.25 * (codebook[nearest] - z_NC).square().mean().float())
        for code in range(5):
            chosen = z_NC[nearest == code]
            count[code] = 0.8 * count[code] + 0.2 * len(chosen)
            total[code] = 0.8 * total[code] + 0.2 * chosen.sum(dim=0)
        smoothed = (count + 1e-5) / (count.sum() + 5e-5) * count.sum()
        codebook = total / smoothed[:, None]
        torch.testing.assert_close(vq.get_codebook(), codebook.float())
    assert not vq.embedding.weight.requires_grad


def test_a_code_that_nothing_chooses_stays_where_it_is() -> None:
    vq = VectorQuantizer(2, 2, ema_decay=0.9)
    vq.embedding.weight.copy_(torch.tensor([[10.0, 10.0], [-50.0, 3.0]]))
    vq.ema_sum.copy_(vq.embedding.weight)
    for _ in range(30):
        vq(clusters())
    torch.testing.assert_close(vq.get_codebook()[1], torch.tensor([-50.0, 3.0]), rtol=1e-3, atol=0)


def test_only_codes_unused_for_long_enough_are_revived() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(3, 2, revive_after=2)
    with torch.no_grad():
        vq.embedding.weight.copy_(torch.tensor([[10.0, 10.0], [-50.0, 0.0], [-60.0, 0.0]]))
    vq(clusters())
    assert vq.steps_unused.tolist() == [0, 1, 1]
    vq(torch.full((1, 2, 1, 1), -60.0))
    assert vq.steps_unused.tolist() == [1, 2, 0]
    batch = clusters()
    vq(batch)
    codebook_KC = vq.get_codebook()
    assert codebook_KC[0].tolist() == [10.0, 10.0]
    assert codebook_KC[2].tolist() == [-60.0, 0.0]
    assert (rows(batch) == codebook_KC[1]).all(dim=1).any()  # exactly a vector of the batch


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_revived_code_starts_as_a_new_one(ema_decay: float | None) -> None:
    vq = VectorQuantizer(4, 2, revive_after=3, ema_decay=ema_decay)
    z_BChw = torch.full((1, 2, 2, 2), 5.0)
    for _ in range(3):
        vq(z_BChw)
    unused = [code for code in range(4) if vq.steps_unused[code] == 3]
    assert len(unused) == 3
    vq(z_BChw)
    # All of them moved to the one vector there is; the first of them is chosen, the others wait anew.
    torch.testing.assert_close(vq.get_codebook()[unused[0]], torch.tensor([5.0, 5.0]))
    assert max(vq.steps_unused.tolist()) == 1


def test_more_dead_codes_than_vectors_become_different_codes() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(8, 2, revive_after=1)
    z_BChw = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    vq(z_BChw)
    vq(z_BChw)
    assert len(vq.get_codebook().unique(dim=0)) == 8


def test_kmeans_places_the_codes_once() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(16, 2, kmeans_init=True)
    vq.eval()(clusters())
    assert not vq.kmeans_done
    vq.train()(clusters())
    assert vq.kmeans_done
    placed_KC = vq.get_codebook().detach().clone()
    vq(clusters() + 100)
    assert torch.equal(vq.get_codebook(), placed_KC)
    loaded = VectorQuantizer(16, 2, kmeans_init=True)
    loaded.load_state_dict(vq.state_dict())
    loaded(clusters() + 100)
    assert torch.equal(loaded.get_codebook(), placed_KC)


@pytest.mark.parametrize("evaluating", [True, False])
def test_nothing_is_counted_outside_training(evaluating: bool) -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(16, 2, **EVERYTHING).train(not evaluating)
    before = copy.deepcopy(vq.state_dict())
    with torch.set_grad_enabled(evaluating):
        vq(clusters())
    vq.search(clusters())
    assert all(torch.equal(before[name], value) for name, value in vq.state_dict().items())


def test_a_checkpoint_resumes_exactly() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(16, 2, **EVERYTHING)
    train(vq, 5)
    resumed = VectorQuantizer(16, 2, **EVERYTHING)
    resumed.load_state_dict(copy.deepcopy(vq.state_dict()))
    random_state = torch.get_rng_state()
    train(vq, 10)
    torch.set_rng_state(random_state)
    train(resumed, 10)
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in vq.state_dict().items())


@pytest.mark.parametrize("options", [{"revive_after": 1, "cosine": True}, {"kmeans_init": True, "cosine": True}])
def test_moving_codes_leaves_the_gradient_of_the_step_whole(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(16, 2, **options)
    for _ in range(3):
        _, loss, _ = vq(clusters())
        loss.backward()  # torch raises if a saved tensor was changed in place


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"revive_after": 50}, {"ema_decay": 0.9, "revive_after": 50}])
def test_a_step_is_the_same_in_one_batch_or_in_four(options: dict[str, float]) -> None:
    states = []
    for pieces in (1, 4):
        torch.manual_seed(0)
        vq = VectorQuantizer(16, 2, **options)
        torch.nn.init.normal_(vq.embedding.weight, std=5)
        with torch.no_grad():
            vq.embedding.weight[0] = 1000  # never chosen
            if "ema_decay" in options:
                vq.ema_sum.copy_(vq.embedding.weight)
        for _ in range(5):
            for number, z_BChw in enumerate(torch.randn(16, 2, 4, 4).mul(5).chunk(pieces), start=1):
                vq.accumulates = number < pieces
                vq(z_BChw)
        states.append(vq.state_dict())
    assert states[0]["embedding.weight"].isfinite().all()
    assert all(state["steps_unused"].max() == 5 for state in states if "steps_unused" in state)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=name)


def test_what_was_gathered_waits_for_the_last_pass_of_the_step() -> None:
    vq = VectorQuantizer(16, 2, ema_decay=0.9, revive_after=50)
    before = copy.deepcopy(vq.state_dict())
    vq.accumulates = True
    vq(clusters())
    assert all(torch.equal(before[name], value) for name, value in vq.state_dict().items())
    vq.accumulates = False
    vq(clusters()[:0])  # even without a vector of its own
    assert vq.ema_count.sum() > before["ema_count"].sum()
    assert set(vq.steps_unused.tolist()) == {0, 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize(
    "options", [{"ema_decay": 0.9}, {"revive_after": 9}, {"kmeans_init": True}, {"ema_decay": 0.9, "kmeans_init": True}]
)
def test_a_vector_that_is_not_finite_leaves_no_trace(options: dict[str, float], bad: float) -> None:
    states = []
    for spoilt in (False, True):
        torch.manual_seed(0)
        vq = VectorQuantizer(16, 2, **options)
        for step in range(3):
            z_BChw = clusters()
            if spoilt and step != 1:
                bad_BChw = torch.ones(1, 2, 8, 1)
                bad_BChw[:, step // 2] = bad
                z_BChw = torch.cat([z_BChw, bad_BChw], dim=3)
            _, loss, _ = vq(z_BChw)
            assert bool(loss.isfinite()) == (not spoilt or step == 1)
        states.append(vq.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=name)


def test_no_code_is_revived_at_a_vector_that_is_not_finite() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(64, 2, ema_decay=0.9, revive_after=1)
    for _ in range(5):
        z_BChw = clusters()
        z_BChw[0, :, 1:] = 1.8e19 * torch.tensor([1.0, math.nan])[:, None, None]
        z_BChw[0, :, 1] = 1e19  # countable, and too long to be squared and added up in float32
        vq(z_BChw)
        assert all(value.isfinite().all() for value in vq.state_dict().values())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"cosine": True}, EVERYTHING])
@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (3, 2, 0, 4)])
def test_no_vectors_have_no_loss_and_change_nothing(
    options: dict[str, float], training: bool, shape: tuple[int, ...]
) -> None:
    vq = VectorQuantizer(16, 2, **options).train(training)
    if vq.revive_after is not None:
        vq.steps_unused.fill_(100)
    before = copy.deepcopy(vq.state_dict())
    z_BChw = torch.randn(shape, requires_grad=True)
    quantized, loss, indices = vq(z_BChw)
    (quantized.sum() + loss).backward()
    assert (quantized.shape, loss.shape, indices.shape) == (shape, (), (0,))
    assert (loss.item(), loss.dtype, indices.dtype) == (0, torch.float32, torch.int64)
    assert z_BChw.grad is not None
    assert vq.search(z_BChw).shape == (shape[0], *shape[2:])
    for name, value in vq.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-6, atol=0, msg=name)


def test_a_step_of_vectors_that_are_not_finite_is_no_step() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(16, 2, **EVERYTHING)
    vq(torch.full((1, 2, 4, 4), math.nan))
    assert not vq.kmeans_done
    assert vq.steps_unused.tolist() == [0] * 16
    vq(clusters())
    assert vq.kmeans_done
    assert vq.get_codebook().isfinite().all()
