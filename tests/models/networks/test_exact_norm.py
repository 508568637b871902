"""Group norm in the memory format in which torch's own is inexact on a CPU."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.networks.exact_norm import ExactGroupNorm, make_norms_exact


def images() -> Tensor:
    """Noise, and two images that are blank but for what padding makes of an edge."""
    draw = torch.Generator().manual_seed(0)
    blank = torch.randn(1, 128, 1, 1, generator=draw).expand(2, 128, 96, 96).contiguous()
    blank[:, :, 0] += 0.01 * torch.randn(2, 128, 96, generator=draw)
    blank[1] += 8.0  # far from zero beside its spread
    noise = torch.randn(1, 128, 96, 96, generator=draw)
    return torch.cat([noise, blank]).contiguous(memory_format=torch.channels_last)


def norm_of(affine: bool = True) -> ExactGroupNorm:
    norm = ExactGroupNorm(32, 128, eps=1e-6, affine=affine)
    if affine:
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    return norm


@torch.no_grad()
@pytest.mark.parametrize("affine", [True, False])
def test_it_is_that_of_float64(affine: bool) -> None:
    norm, x = norm_of(affine), images()
    weight, bias = (norm.weight.double(), norm.bias.double()) if affine else (None, None)
    expected = F.group_norm(x.double().contiguous(), 32, weight, bias, eps=1e-6)
    assert (nn.GroupNorm.forward(norm, x) - expected).abs().max() > 1e-3, "torch's is exact by now: drop ours"
    assert (norm(x) - expected).abs().max() < 3e-5
    assert (norm.with_silu(x) - F.silu(expected)).abs().max() < 3e-5
    assert norm(x).is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(norm(x[i : i + 1]), norm(x)[i : i + 1]) for i in range(3)), "the batch decides"


def test_elsewhere_it_is_torchs_own() -> None:
    norm, x = norm_of(), images()
    assert torch.equal(norm(x), nn.GroupNorm.forward(norm, x))  # with gradients
    with torch.no_grad():
        other = images().contiguous()
        assert torch.equal(norm(other), nn.GroupNorm.forward(norm, other))
        assert torch.equal(norm.with_silu(other), F.silu(nn.GroupNorm.forward(norm, other)))
        half = images().bfloat16()
        assert torch.equal(norm.bfloat16()(half), nn.GroupNorm.forward(norm, half))


@torch.no_grad()
def test_the_norms_of_other_libraries_become_it() -> None:
    model, x = nn.Sequential(nn.GroupNorm(32, 128), nn.SiLU()), images()
    make_norms_exact(model)
    assert torch.equal(model(x), F.silu(ExactGroupNorm(32, 128)(x)))
