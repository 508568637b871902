"""Where our kernels take over from torch's group norm."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F

from pipeline.models.networks.vqgan import blocks, norms
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.networks.vqgan.norms import GroupNorm, fuses, kernels_work

CODER = Coder(widths=(32, 64), depth=1, attention=(False, True), middle_attention=True)
ARCHITECTURE = Architecture(
    encoder=CODER, decoder=CODER, stem=32, latent=8, quant_kernel=3, vocab_size=8, embedding_dim=4
)


def test_on_a_cpu_it_is_torchs_own_to_the_last_bit() -> None:
    norm, x = GroupNorm(64), torch.randn(2, 64, 5, 3)
    assert torch.equal(norm(x), F.group_norm(x, 32, norm.weight, norm.bias, 1e-6))
    assert torch.equal(norm.silu(x), F.silu(norm(x)))


@pytest.mark.parametrize("refused", ["nothing", "gradients", "format", "dtype", "kernels"])
def test_kernels_are_for_cuda_without_gradients_in_channels_last(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "kernels_work", lambda device: refused != "kernels")
    monkeypatch.setattr(norms, "Tensor", FakeTensor)
    with FakeTensorMode(), torch.set_grad_enabled(refused == "gradients"):
        x = torch.zeros(2, 32, 4, 4, device="cuda", dtype=torch.float64 if refused == "dtype" else torch.bfloat16)
        if refused != "format":
            x = x.contiguous(memory_format=torch.channels_last)
        assert fuses(x) == (refused == "nothing")
        assert not fuses(x.cpu())


@pytest.mark.usefixtures("modules_that_move")
def test_activations_of_a_network_on_cuda_stay_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for no other format are of no use."""
    seen = []

    def looked_at(x: torch.Tensor) -> bool:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return False

    monkeypatch.setattr(blocks, "fuses", looked_at)
    monkeypatch.setattr(norms, "fuses", looked_at)
    with FakeTensorMode(), torch.no_grad():
        model = Vqgan(ARCHITECTURE).eval().to("cuda")
        for weight in model.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        img_B3HW = torch.zeros(2, 3, 16, 16, device="cuda").contiguous(memory_format=torch.channels_last)
        model.decode(model.encode(img_B3HW))
    assert len(seen) >= 30 and all(seen)


def test_kernels_that_cannot_be_had_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    kernels_work.cache_clear()
    assert not kernels_work(torch.device("cpu"))
    assert not kernels_work(torch.device("cpu"))
    kernels_work.cache_clear()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(
        "vqtok: VQ-GANs encode at less than half their speed here: no Triton"
    )


def test_kernels_that_give_something_else_are_not_used(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kernels = pytest.importorskip("pipeline.models.networks.vqgan.kernels", exc_type=ImportError)
    monkeypatch.setattr(kernels, "group_norm", lambda x, *_, **__: x)
    monkeypatch.setattr(kernels, "residual_sum", lambda x, h, added, extra: x + h + (added + extra)[:, None, None])
    monkeypatch.setattr(kernels, "with_bias", lambda x, added: x + added[:, None, None])
    monkeypatch.setattr(kernels, "padded", lambda x: F.pad(x, (0, 1, 0, 1)))
    kernels_work.cache_clear()
    assert not kernels_work(torch.device("cpu"))
    kernels_work.cache_clear()
    assert "no Triton kernels (group norm is off by " in capfd.readouterr().err
