"""What a network holds goes into the bytes of a safetensors file and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from pipeline.errors import TokenizerError
from pipeline.models.networks.state import inference_state, load_state, state_bytes


class Network(nn.Linear):
    """One that counts its steps while it is trained."""

    def __init__(self, outputs: int = 3, counting: bool = False) -> None:
        super().__init__(2, outputs)
        if counting:
            self.register_buffer("steps", torch.tensor(7))

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {"outputs": self.out_features}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_inference_gets_its_tensors_in_float32_and_no_other(dtype: torch.dtype) -> None:
    network, before = Network(5, counting=True).to(dtype), torch.get_rng_state()
    data = inference_state(network)
    assert torch.equal(torch.get_rng_state(), before)  # though a network was built to see what it needs
    assert {name: value.dtype for name, value in load(data).items()} == dict.fromkeys(("weight", "bias"), torch.float32)
    loaded = Network(5)
    load_state(loaded, data, Path("x"))
    assert torch.equal(loaded.weight, network.weight.float())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    network = Network()
    with torch.no_grad():
        network.bias[1] = value
    with pytest.raises(TokenizerError, match="bias is not finite: training diverged"):
        inference_state(network)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, r"^x: tensor bias is missing, but the arguments in .* ask for F32 \[3\]; copy"),
        ({**Network(4).state_dict()}, r"^x: tensor bias is F32 \[4\], but .* ask for F32 \[3\]"),
        ({**Network().state_dict(), "head": torch.zeros(1)}, r"^x: tensor head is F32 \[1\], but .* ask for none"),
        ({**Network().state_dict(), "bias": torch.zeros(3, dtype=torch.int64)}, r"^x: tensor bias is I64 \[3\], but"),
    ],
)
def test_a_file_of_other_tensors_is_refused(state: dict[str, torch.Tensor], message: str) -> None:
    network = Network()
    before = network.weight.clone()
    with pytest.raises(TokenizerError, match=message):
        load_state(network, state_bytes(state), Path("x"))
    assert torch.equal(network.weight, before)
