"""What no GPU here can show: on one, no tensors of two devices meet, and nothing waits for a value.

Tensors that only have shapes and devices raise at both.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from published import VAR
from support import sampled
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pipeline.models import SimpleVQVAE
from pipeline.models.layouts.cuts import CUTS
from pipeline.models.layouts.scales import Scales
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.rules import multiscale
from pipeline.models.rules.lookup import LOOKUP, lookup
from pipeline.models.rules.multiscale import MULTISCALE
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.protocol import Precision
from pipeline.records import Normalization

CODER = Coder(widths=(32, 32), depth=1, attention=(False, True), middle_attention=True)
ARCHITECTURE = Architecture(
    encoder=CODER, decoder=CODER, stem=32, latent=8, quant_kernel=3, vocab_size=VAR.K, embedding_dim=4
)
SIDES = (1, 2, 4)
RULE = {
    "patch_nums": np.array(SIDES),
    "phi_weight": np.zeros((3, 4, 4, 3, 3), np.float32),
    "phi_bias": np.zeros((3, 4), np.float32),
}

MODELS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "ours": (lambda: SimpleVQVAE(64, 8, 12, cosine=True), False),
    "one grid": (lambda: Vqgan(ARCHITECTURE, cosine=True), False),
    "several scales": (lambda: Vqgan(ARCHITECTURE, patch_nums=SIDES), True),
    "several scales by angle": (lambda: Vqgan(ARCHITECTURE, patch_nums=SIDES, cosine=True, phis=1), True),
}


@pytest.fixture(autouse=True)
def numbers_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values cannot be read on the CPU either, where that is no wait."""

    def read(array: Tensor) -> tuple[int, ...]:
        assert array.device.type == "cpu"
        return SIDES

    monkeypatch.setattr(multiscale, "_numbers", read)


@pytest.mark.usefixtures("modules_that_move")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("precision", sampled("bf16", "tf32", "fp32"))
@pytest.mark.parametrize(("make", "scales"), MODELS.values(), ids=MODELS)
def test_a_tokenizer_on_a_gpu(make: Callable[[], nn.Module], scales: bool, precision: Precision) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = make().eval()
        tokenizer = NetworkTokenizer(
            model,  # type: ignore[arg-type]
            Scales(SIDES) if scales else CUTS["raster"],
            Normalization(),
            {},
            MULTISCALE if scales else LOOKUP,
            RULE if scales else {},
        ).to("cuda", precision)
        side = 4 * tokenizer.downsampling
        idx_Bl = tokenizer.encode(torch.zeros(3, 3, side, side))  # as they come from the host
        x_BLC = tokenizer.idxBl_to_var_input(idx_Bl)
        img_B3HW = tokenizer.decode(idx_Bl, (4, 4))
        reconstruction, loss, _ = model.train()(torch.zeros(3, 3, side, side, device="cuda"))
        loss = reconstruction.square().mean() + loss  # going backwards takes threads of a real device
    assert {t.device.type for t in (*idx_Bl, x_BLC, img_B3HW, loss)} == {"cuda"}
    assert tuple(img_B3HW.shape) == (3, 3, side, side)
    assert tuple(x_BLC.shape[:2]) == (3, 20 if scales else 16)


def test_the_proof_can_fail() -> None:
    with FakeTensorMode():
        table, indices = torch.zeros(8, 4, device="cuda"), torch.zeros(3, dtype=torch.int64, device="cuda")
        assert lookup(indices, table).device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            indices.max().item()
        with pytest.raises(RuntimeError, match="device"):
            table + torch.zeros(8, 4)
