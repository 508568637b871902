"""Devices without float64."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.models.networks import float64
from pipeline.models.networks.float64 import in_float64
from pipeline.models.networks.kmeans import draw_vectors
from pipeline.models.networks.quantizer import VectorQuantizer


class NoFloat64(TorchDispatchMode):
    """As Apple's GPUs: it refuses such tensors. Of their kind there are not even tensors without values here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.device.type == "cuda" and out.dtype == torch.float64:
            raise TypeError("no float64 here")
        return out


@pytest.mark.usefixtures("modules_that_move")
@pytest.mark.parametrize("cosine", [False, True])
def test_a_quantizer_on_a_device_without_float64(cosine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float64, "_WITH", ("cpu",))
    with FakeTensorMode(allow_non_fake_inputs=True), NoFloat64():
        quantize = VectorQuantizer(8, 4, cosine=cosine).to("cuda")
        z_BChw = torch.zeros(2, 4, 3, 3, device="cuda")
        assert quantize.search(z_BChw).device.type == "cuda"
        assert quantize.get_codebook().device.type == "cuda"
        assert draw_vectors(z_BChw.reshape(-1, 4), 50).device.type == "cuda"
        with pytest.raises(TypeError, match="float64"):
            z_BChw.double()


def test_elsewhere_it_is_where_the_tensor_is() -> None:
    x = torch.randn(3)
    assert torch.equal(in_float64(x), x.double())
