"""Convolutions by tiles: what torch's give, and where they are used."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.layouts.cuts import cut_named
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqgan.winograd import Conv3x3
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.records import Normalization

WIDE = 64


def conv(inner: int = WIDE, outer: int = WIDE) -> Conv3x3:
    torch.manual_seed(0)
    return Conv3x3(inner, outer).to(memory_format=torch.channels_last)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)


def exactly(module: Conv3x3, x: Tensor) -> Tensor:
    bias = None if module.bias is None else module.bias.double()
    return F.conv2d(x.double(), module.weight.double(), bias, padding=1)


@pytest.mark.parametrize("size", [(16, 16), (16, 36), (20, 28), (32, 32), (40, 260), (132, 36)], ids=str)
def test_it_is_as_near_to_float64_as_rounding_allows(size: tuple[int, int]) -> None:
    module, x = conv(WIDE, 96), images(2, WIDE, *size)
    expected = exactly(module, x)
    with torch.no_grad():
        found = module(x)
        assert not torch.equal(found, F.conv2d(x, module.weight, module.bias, padding=1)), "tiles are not used"
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_an_image_has_the_same_results_in_any_batch() -> None:
    module, x = conv(), images(5, WIDE, 48, 32)
    with torch.no_grad():
        alone = torch.cat([module(img[None].contiguous(memory_format=torch.channels_last)) for img in x])
        assert torch.equal(module(x), alone)


def test_weights_that_change_are_transformed_anew() -> None:
    module, x = conv(), images(1, WIDE, 16, 16)
    with torch.no_grad():
        module(x)
        for change in (
            lambda: module.weight.mul_(2),
            lambda: module.load_state_dict(conv(WIDE).state_dict()),
            lambda: setattr(module.weight, "data", module.weight.data * 3),
        ):
            change()
            assert torch.allclose(module(x).double(), exactly(module, x), atol=1e-4)
        other = copy.deepcopy(module)
        other.weight.zero_()
        assert torch.equal(other(x), module.bias[:, None, None].expand(1, WIDE, 16, 16))  # type: ignore[index]


def test_without_a_bias_and_within_inference_mode() -> None:
    with torch.inference_mode():
        module, x = conv(), images(1, WIDE, 32, 32)
        module.bias = None
        assert torch.allclose(module(x).double(), exactly(module, x), atol=1e-4)


@pytest.mark.parametrize("case", ["gradients", "narrow", "tiny", "odd", "contiguous", "half"])
def test_elsewhere_it_is_torchs_own_to_the_last_bit(case: str) -> None:
    module = conv(32 if case == "narrow" else WIDE)
    side = {"tiny": 12, "odd": 18}.get(case, 32)
    x = images(2, module.in_channels, side, side)
    if case == "contiguous":
        x = x.contiguous()
    if case == "half":
        module, x = module.bfloat16(), x.bfloat16()
    with torch.set_grad_enabled(case == "gradients"):
        assert torch.equal(module(x), F.conv2d(x, module.weight, module.bias, padding=1))


@pytest.mark.parametrize("width", [32, WIDE])
def test_a_tokenizer_says_so_and_has_the_same_tokens(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = Coder(widths=(width, width), depth=1, attention=(False, False), middle_attention=True)
    architecture = Architecture(
        encoder=coder, decoder=coder, stem=width, latent=8, quant_kernel=1, vocab_size=64, embedding_dim=4
    )
    torch.manual_seed(0)
    model = Vqgan(architecture, cosine=True).eval()
    tokenizer = NetworkTokenizer(model, cut_named("raster"), Normalization(), {}).to("cpu")
    assert tokenizer.execution() == {"group_norm": "exact", **({"convolution": "winograd"} if width == WIDE else {})}
    img_B3HW = images(4, 3, 64, 64)
    (found,) = tokenizer.encode(img_B3HW)
    monkeypatch.setattr(Conv3x3, "_pays", lambda conv, x: False)
    (expected,) = tokenizer.encode(img_B3HW)
    assert found.unique().numel() > 8
    assert (found != expected).float().mean() < 1e-3
