"""Bicubic upsampling: on a CPU by torch, on an accelerator by matrix products; values and gradients are the same."""

from itertools import product
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.models.determinism import same_each_time
from pipeline.models.rules.resizing import Bicubic, downsample, upsample

SIZES = [*product((1, 2, 3, 4, 5, 6, 8, 10, 13), (16,)), (3, 4), (24, 32), (5, 5), (7, 3)]


@pytest.mark.parametrize(("p", "P"), SIZES)
def test_values_and_gradients_are_those_of_torch(p: int, P: int) -> None:
    torch.manual_seed(p)
    h_BCpp = torch.randn(2, 3, p, p, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(2, 3, P, P, dtype=torch.float64)
    for form in (torch.contiguous_format, torch.channels_last):
        given = h_BCpp.detach().contiguous(memory_format=form).requires_grad_()
        expected = F.interpolate(given, size=(P, P), mode="bicubic")
        found = Bicubic.apply(given, P)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        (g_expected,), (g_found,) = (torch.autograd.grad(out, given, gradient) for out in (expected, found))
        torch.testing.assert_close(g_found, g_expected, rtol=1e-12, atol=1e-12)


def test_autocast_and_inference_change_nothing() -> None:
    h_BCpp = torch.randn(2, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        resized = Bicubic.apply(h_BCpp, 8)
    torch.testing.assert_close(resized, F.interpolate(h_BCpp, size=(8, 8), mode="bicubic"))


def test_only_accelerators_take_the_other_way() -> None:
    """On a CPU the bits of earlier stores and trainings stay."""
    for device, name in (("cpu", "UpsampleBicubic2DBackward0"), ("cuda", "BicubicBackward")):
        with FakeTensorMode():
            h_BCpp = torch.zeros(2, 3, 4, 4, device=device, requires_grad=True)
            assert type(upsample(h_BCpp, 8, last=False).grad_fn).__name__ == name
            assert upsample(h_BCpp, 4, last=True) is h_BCpp


class WhereMeansAreTaken(TorchDispatchMode):
    """Notes the device of each mean over areas."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "pool" in str(func):
            self.devices.append(args[0].device.type)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("device", "where"), [("cpu", "cpu"), ("cuda", "cuda"), ("mps", "cpu")])
def test_means_over_unequal_areas_are_not_asked_of_an_apple_gpu(device: str, where: str) -> None:
    with FakeTensorMode(), WhereMeansAreTaken() as seen:
        means_BCpp = downsample(torch.zeros(2, 3, 16, 16, device=device), 5, last=False)
    assert (means_BCpp.device.type, tuple(means_BCpp.shape)) == (device, (2, 3, 5, 5))
    assert seen.devices == [where]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_gradient_is_the_same_each_time() -> None:
    h_BCpp = torch.randn(8, 32, 13, 13, device="cuda", requires_grad=True)
    gradient = torch.randn(8, 32, 16, 16, device="cuda")
    with same_each_time(h_BCpp.device):
        found = [torch.autograd.grad(upsample(h_BCpp, 16, last=False), h_BCpp, gradient)[0] for _ in range(20)]
    assert all(torch.equal(one, found[0]) for one in found)
