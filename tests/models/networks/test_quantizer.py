from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.errors import TokenizerError
from pipeline.models import VectorQuantizer


def quantizer(K: int = 16, C: int = 4, **options: object) -> VectorQuantizer:
    torch.manual_seed(0)
    vq = VectorQuantizer(K, C, **options)
    torch.nn.init.normal_(vq.embedding.weight)
    return vq


def reference(z_BChw: Tensor, codebook_KC: Tensor) -> tuple[Tensor, Tensor]:
    """Quantized [B, C, h, w] and indices [B, h, w], position by position."""
    q_BChw, idx_Bhw = torch.empty_like(z_BChw), torch.empty(z_BChw[:, 0].shape, dtype=torch.int64)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, idx_Bhw.shape)).tolist():
        idx_Bhw[b, i, j] = (codebook_KC - z_BChw[b, :, i, j]).square().sum(1).argmin()
        q_BChw[b, :, i, j] = codebook_KC[idx_Bhw[b, i, j]]
    return q_BChw, idx_Bhw


def test_a_new_codebook_is_uniform_and_the_only_state() -> None:
    vq = VectorQuantizer(50, 1000)
    assert list(vq.state_dict()) == ["embedding.weight"]
    weight_KC = vq.get_codebook()
    assert tuple(weight_KC.shape) == (50, 1000)
    assert weight_KC.abs().max() <= 1 / 50
    assert weight_KC.std().item() == pytest.approx(1 / 50 / 3**0.5, rel=0.02)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 4, 4, 4),  # C = h = w: a loss between [B, C, h, w] and [B, h, w, C] runs silently
        (2, 4, 3, 5),
        (1, 4, 1, 7),
    ],
)
def test_values_loss_and_gradients_are_those_of_the_formulas(shape: tuple[int, ...]) -> None:
    vq = quantizer(beta=0.3).double()
    z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(shape, dtype=torch.float64)
    quantized, loss, indices = vq(z)
    ((quantized * upstream).sum() + loss).backward()

    q, idx_Bhw = reference(z.detach(), vq.embedding.weight.detach())
    difference = q - z.detach()
    assert torch.equal(indices, idx_Bhw.reshape(-1))
    assert torch.equal(quantized, q)  # to the last bit
    assert loss.item() == pytest.approx(1.3 * difference.square().mean().item(), rel=1e-12)
    torch.testing.assert_close(z.grad, upstream - 0.3 * 2 * difference / z.numel())
    codebook_grad = torch.zeros_like(vq.embedding.weight)
    codebook_grad.index_add_(0, indices, 2 * difference.permute(0, 2, 3, 1).reshape(-1, 4) / z.numel())
    torch.testing.assert_close(vq.embedding.weight.grad, codebook_grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codebook_too", [False, True])
def test_half_precision_is_searched_and_compared_in_float32(dtype: torch.dtype, codebook_too: bool) -> None:
    vq = quantizer(64).to(dtype if codebook_too else torch.float32)
    z = torch.randn(2, 4, 3, 5).to(dtype).requires_grad_()
    quantized, loss, indices = vq(z)
    (quantized.float().sum() + loss).backward()
    q, idx_Bhw = reference(z.detach().float(), vq.embedding.weight.detach().float())
    assert torch.equal(indices, idx_Bhw.reshape(-1))
    assert torch.equal(quantized, q.to(dtype))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1.25 * (q - z.detach().float()).square().mean().item(), rel=1e-5)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_autocast_changes_nothing() -> None:
    vq, z = quantizer(256), torch.randn(4, 4, 8, 8)
    exact = vq(z)
    with torch.autocast("cpu", torch.bfloat16):
        under = vq(z)
    assert all(torch.equal(a, b) for a, b in zip(exact, under, strict=True))
    assert under[1].dtype == torch.float32


def test_inputs_that_are_not_contiguous_and_channels_last_are_the_same_vectors() -> None:
    vq, z = quantizer(), torch.randn(2, 4, 3, 5)
    expected = vq(z)
    for same in (z.to(memory_format=torch.channels_last), z.transpose(2, 3).contiguous().transpose(2, 3)):
        assert all(torch.equal(a, b) for a, b in zip(vq(same), expected, strict=True))
    assert torch.equal(vq.search(z).reshape(-1), expected[2])


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,  # torch reads it as a mask
        torch.uint16,
        torch.uint32,
        torch.int16,
        torch.int8,
        torch.int32,
        torch.int64,
        torch.uint64,
    ],
)
def test_indices_of_any_integer_dtype_look_up_the_same_codes(dtype: torch.dtype) -> None:
    vq = quantizer(100)
    indices = torch.tensor([[0, 1, 1], [99, 7, 0]])
    found = vq.lookup(indices.to(dtype))
    assert tuple(found.shape) == (2, 3, 4)
    assert torch.equal(found, vq.embedding.weight[indices])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_indices_that_are_no_integers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TokenizerError, match=f"must be integers, not {dtype}"):
        quantizer().lookup(torch.ones(3).to(dtype))


@pytest.mark.parametrize("index", [-1, 16, 2**40])
def test_an_index_out_of_range_is_named_with_the_vocab_size(index: int) -> None:
    with pytest.raises(TokenizerError, match=rf"code index {index} is not in 0 .. 15 \(vocab_size 16\)"):
        quantizer().lookup(torch.tensor([3, index, 4]))


def test_no_indices_give_no_codes() -> None:
    assert tuple(quantizer().lookup(torch.empty(2, 0, dtype=torch.uint8)).shape) == (2, 0, 4)


class DevicesOfLookups(TorchDispatchMode):
    """Records the devices that meet in a lookup: the meta device forgives what CUDA does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "embedding" in func.name():
            self.seen.update(arg.device.type for arg in args if isinstance(arg, Tensor))
        return func(*args, **(kwargs or {}))


def test_indices_follow_the_codebook_to_its_device() -> None:
    vq = quantizer().to("meta")
    with DevicesOfLookups() as lookups:
        found = vq.lookup(torch.tensor([[1, 2]], dtype=torch.uint8))
    assert lookups.seen == {"meta"}
    assert (found.device.type, tuple(found.shape)) == ("meta", (1, 2, 4))


@pytest.mark.parametrize("options", [{}, {"kmeans_init": True}, {"revive_after": 1}])
def test_vectors_on_another_device_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match="vectors are on cpu and the codebook is on meta"):
        quantizer(**options).to("meta")(torch.randn(1, 4, 2, 2))


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(1, 5, 2, 2), r"\[B, 4, h, w\], not \[1, 5, 2, 2\]"),
        (torch.zeros(4, 2, 2), r"\[B, 4, h, w\], not \[4, 2, 2\]"),
        (torch.zeros(1, 4, 2, 2, dtype=torch.uint8), "not torch.uint8"),
    ],
)
def test_vectors_of_another_form_are_refused(z: Tensor, message: str) -> None:
    for call in (quantizer(), quantizer().search):
        with pytest.raises(TokenizerError, match=message):
            call(z)


def test_cosine_codes_compare_by_angle_and_the_codebook_is_normalised() -> None:
    vq, z = quantizer(cosine=True), torch.randn(2, 4, 3, 5, requires_grad=True)
    quantized, loss, indices = vq(z)
    codebook_KC = vq.get_codebook()
    torch.testing.assert_close(codebook_KC.norm(dim=1), torch.ones(16))
    z_NC = z.detach().permute(0, 2, 3, 1).reshape(-1, 4)
    similarity_NK = F.cosine_similarity(z_NC[:, None], vq.embedding.weight.detach()[None], dim=2)
    assert torch.equal(indices, similarity_NK.argmax(dim=1))
    q_NC = quantized.permute(0, 2, 3, 1).reshape(-1, 4)
    assert torch.equal(q_NC, vq.lookup(indices))
    expected = 1.25 * (q_NC - F.normalize(z_NC, dim=1)).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    # Both gradients pass the normalisation, so they have no part along the vector.
    (quantized.square().sum() + loss).backward()
    assert z.grad is not None
    assert vq.embedding.weight.grad is not None
    assert (z.grad * z).sum(dim=1).abs().max() < 1e-6
    assert (vq.embedding.weight.grad * vq.embedding.weight).sum(dim=1).abs().max() < 1e-6
