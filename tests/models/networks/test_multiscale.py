"""The quantizer of several scales, beside the paper's algorithms word by word."""

from collections.abc import Iterator

import published
import pytest
import torch
from published import Scales
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.networks.multiscale import MultiscaleQuantizer, phi_numbers

C, K, SIDES = 6, 40, (1, 2, 3, 5)


def quantizer(phis: int = 4, cosine: bool = False, sides: tuple[int, ...] = SIDES) -> MultiscaleQuantizer:
    torch.manual_seed(phis)
    made = MultiscaleQuantizer(K, C, patch_nums=sides, phis=phis, cosine=cosine)
    torch.nn.init.normal_(made.embedding.weight)
    return made


def reference(model: MultiscaleQuantizer, phi_of_scale: list[int]) -> Scales:
    phi = [(model.phi[number].weight.detach(), model.phi[number].bias.detach()) for number in phi_of_scale]
    return Scales(model.embedding.weight.detach(), phi, model.patch_nums, model.cosine)


def vectors(B: int, P: int = SIDES[-1], seed: int = 0) -> Tensor:
    return torch.randn(B, C, P, P, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("phis", "scales", "numbers"),
    [
        (4, 10, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),  # as the published one shares four
        (1, 10, [0] * 10),
        (10, 10, list(range(10))),
        (4, 4, [0, 1, 2, 3]),
        (14, 14, list(range(14))),
        (4, 1, [0]),
    ],
)
def test_which_convolution_serves_which_scale(phis: int, scales: int, numbers: list[int]) -> None:
    assert phi_numbers(phis, scales) == numbers


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(("phis", "numbers"), [(4, [0, 1, 2, 3]), (1, [0, 0, 0, 0])])
def test_it_codes_as_the_paper_says(phis: int, numbers: list[int], cosine: bool) -> None:
    model = quantizer(phis, cosine)
    paper, z_BCPP = reference(model, numbers), vectors(3)
    idx = model.search(z_BCPP)
    assert [tuple(idx_Bpp.shape) for idx_Bpp in idx] == [(3, p, p) for p in SIDES]
    for row, z_CPP in enumerate(z_BCPP):
        expected = paper.encode(z_CPP)
        assert all(map(torch.equal, [idx_Bpp[row] for idx_Bpp in idx], expected))
        for count, total in enumerate(paper.sums(expected), 1):
            torch.testing.assert_close(model.features([i[row : row + 1] for i in idx[:count]]), total)


def test_the_ten_scales_of_the_paper() -> None:
    model = quantizer(sides=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
    z_BCPP = vectors(1, 16)
    idx = model.search(z_BCPP)
    assert sum(idx_Bpp[0].numel() for idx_Bpp in idx) == 680
    expected = reference(model, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]).encode(z_BCPP[0])
    assert all(map(torch.equal, [idx_Bpp[0] for idx_Bpp in idx], expected))


def test_an_image_has_the_same_tokens_in_any_batch() -> None:
    model, z_BCPP = quantizer(sides=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16)), vectors(32, 16)
    together = model.search(z_BCPP)
    for row in range(32):
        assert all(map(torch.equal, model.search(z_BCPP[row : row + 1]), [i[row : row + 1] for i in together]))


@pytest.fixture
def torch_settings() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"


@pytest.mark.usefixtures("torch_settings")
def test_everything_is_float32_whatever_is_set_or_given() -> None:
    model = quantizer()
    z_BCPP = vectors(4).bfloat16()
    exact, settings = model.search(z_BCPP.float()), []
    features = model.features(exact)

    def watch(*_: object) -> None:
        settings.append((torch.backends.mkldnn.conv.fp32_precision, torch.is_autocast_enabled("cpu")))

    torch.backends.fp32_precision = "bf16"
    convolution = F.conv2d
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(F, "conv2d", lambda *args, **named: (watch(), convolution(*args, **named))[1])
        assert all(map(torch.equal, model.search(z_BCPP), exact))
        assert torch.equal(model.features(exact), features)
    assert set(settings) == {("ieee", False)}
    assert len(settings) == 2 * len(SIDES)


@pytest.mark.parametrize(("sides", "phis", "used"), [((1, 2, 5), 4, 3), ((5,), 4, 1), (SIDES, 4, 4), ((1, 2, 5), 1, 1)])
def test_no_rank_waits_for_the_gradient_of_a_convolution_that_serves_no_scale(
    sides: tuple[int, ...], phis: int, used: int
) -> None:
    model = quantizer(phis, sides=sides)
    out, loss, _ = model(vectors(2).requires_grad_())
    (out.sum() + loss).backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert len(trained) == 1 + 2 * used


def test_the_loss_is_the_mean_over_scales_and_the_gradient_goes_straight_through() -> None:
    model, z_BCPP = quantizer(), vectors(2).requires_grad_()
    out, loss, indices = model(z_BCPP)
    assert torch.equal(indices, torch.cat([i.flatten(1) for i in model.search(z_BCPP)], dim=1).flatten())
    sums = reference(model, [0, 1, 2, 3])
    totals = [sums.sums([i[row] for i in model.search(z_BCPP)]) for row in range(2)]
    per_scale = [
        1.25 * (torch.cat([totals[row][k] for row in range(2)]) - z_BCPP.detach()).square().mean() for k in range(4)
    ]
    torch.testing.assert_close(loss.detach(), torch.stack(per_scale).mean())
    torch.testing.assert_close(out.detach(), model.features(model.search(z_BCPP)))
    gradient = torch.randn(out.shape)
    (out * gradient).sum().backward(retain_graph=True)
    assert torch.equal(z_BCPP.grad, gradient)
    loss.backward()
    assert model.embedding.weight.grad.abs().sum() > 0
    assert all(conv.weight.grad.abs().sum() > 0 for conv in model.phi)


@pytest.mark.parametrize("z", [vectors(1, 4), vectors(1)[0], vectors(1)[:, :5], vectors(1).long()])
def test_what_it_cannot_code_is_refused(z: Tensor) -> None:
    with pytest.raises(TokenizerError, match="takes"):
        quantizer().search(z)


def test_the_reference_can_fail() -> None:
    """A convolution of another scale is another code somewhere."""
    model = quantizer()
    found = [i[0] for i in model.search(vectors(1))]
    assert not all(map(torch.equal, found, reference(model, [3, 2, 1, 0]).encode(vectors(1)[0])))
    assert published.nearest(torch.ones(1, 2), torch.tensor([[5.0, 5.0], [1.0, 1.1]])).tolist() == [1]


def test_the_codebook_follows_the_rests_of_all_scales() -> None:
    torch.manual_seed(0)
    model = MultiscaleQuantizer(K, C, patch_nums=SIDES, ema_decay=0.5, kmeans_init=True)
    model(vectors(4))
    assert bool(model.kmeans_done)
    z_BCPP, paper = vectors(4, seed=1), reference(model, [0, 1, 2, 3])
    count_K, sum_KC = model.ema_count.clone(), model.ema_sum.clone()
    for z_CPP in z_BCPP:
        rest = z_CPP[None]
        for k, grid in enumerate(paper.encode(z_CPP)):
            small = rest if k == 3 else F.interpolate(rest, grid.shape, mode="area")
            count_K += torch.bincount(grid.flatten(), minlength=K)
            sum_KC.index_add_(0, grid.flatten(), small[0].permute(1, 2, 0).reshape(-1, C))
            rest = rest - paper.add(k, grid)
    model(z_BCPP)
    torch.testing.assert_close(model.ema_count, 0.5 * count_K)
    torch.testing.assert_close(model.ema_sum, 0.5 * sum_KC)
    with torch.no_grad():
        model(vectors(4, seed=2))  # no training step
    torch.testing.assert_close(model.ema_count, 0.5 * count_K)


def test_dead_codes_move_to_rests() -> None:
    torch.manual_seed(0)
    model = MultiscaleQuantizer(K, C, patch_nums=SIDES, revive_after=1)
    torch.nn.init.constant_(model.embedding.weight, 1000.0)  # far from everything
    torch.nn.init.zeros_(model.embedding.weight[0].detach())
    model(vectors(4))
    assert model.codes_wait
    model(vectors(4))
    assert model.embedding.weight.abs().max() < 100
