"""Training steps, figures and evaluation on an accelerator: no tensors of two devices meet, and none is float64.

There is none here. Tensors without values are on one that is pretended: torch knows it as it knows MPS, with a gradient
that goes back on it, and an operation on two devices raises. Asked for a value, it says yes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from fixtures_store import Child
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.config import TrainConfig
from pipeline.jobs.training import evaluation
from pipeline.jobs.training.evaluation import HeldOut, evaluate, mean_image_psnr
from pipeline.jobs.training.network import TrainedNetwork
from pipeline.jobs.training.stepper import Interval, Stepper
from pipeline.jobs.training.stream import TrainBatch
from pipeline.models import SimpleVQVAE
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.records import Normalization

pytest_plugins = ["fixtures_store"]

NAME = "pretended"
SIDE = 16
K = 32
CODER = Coder(widths=(32, 32), depth=1, attention=(False, True), middle_attention=True)
ARCHITECTURE = Architecture(
    encoder=CODER, decoder=CODER, stem=32, latent=8, quant_kernel=3, vocab_size=K, embedding_dim=4
)
UPKEEP: dict[str, Any] = {"ema_decay": 0.9, "kmeans_init": True, "revive_after": 1}
MODELS: dict[str, Callable[[], TrainedNetwork]] = {
    "ours with all upkeep": lambda: SimpleVQVAE(K, 4, 8, residual_blocks=1, cosine=True, **UPKEEP),
    "by angle": lambda: SimpleVQVAE(K, 4, 8, cosine=True),
    "one grid": lambda: Vqgan(ARCHITECTURE, cosine=True, **UPKEEP),
    "several scales": lambda: Vqgan(ARCHITECTURE, patch_nums=(1, 2, 8)),
    "several scales with all upkeep": lambda: Vqgan(ARCHITECTURE, patch_nums=(1, 2, 8), cosine=True, **UPKEEP),
}

aten = torch.ops.aten


class Answers(TorchDispatchMode):
    """Says yes, or one, where a value is asked for; refuses float64 anywhere but on the CPU."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.bincount.default:
            return args[0].new_zeros(kwargs["minlength"] if kwargs else args[2])
        if func is aten.nonzero.default:
            return args[0].new_zeros((args[0].numel(), args[0].dim()), dtype=torch.int64)
        if func is aten.index.Tensor and any(index is not None and index.dtype == torch.bool for index in args[1]):
            (mask,) = args[1]
            assert mask.device == args[0].device
            return args[0].flatten(0, mask.dim() - 1).clone()
        found = func(*args, **kwargs or {})
        for value in tree_leaves(found):
            if isinstance(value, Tensor) and value.dtype == torch.float64 and value.device.type != "cpu":
                raise TypeError(f"{func}: {value.device} has no float64")
        return found


def train_and_evaluate(name: str, pieces: int) -> None:
    """Some steps of one model."""
    module = ModuleType(NAME)
    module.__dict__.update(get_amp_supported_dtype=lambda: [torch.bfloat16], is_available=lambda: True)
    torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME, module)
    FakeTensorMode.avoid_device_init = True  # type: ignore[assignment,method-assign]  # as it is for CUDA
    device = torch.device(NAME, 0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=pieces))
    PartialState._shared_state["device"] = accelerator.state.device = device
    evaluation.comparison_png = _picture  # type: ignore[assignment]
    train = TrainConfig(gradient_accumulation=pieces, batch_size=3)
    with torch.autograd.set_multithreading_enabled(False), FakeTensorMode(), Answers():
        with device:
            model = MODELS[name]()
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        stepper = Stepper(accelerator, model, optimizer, scheduler, Normalization(), train)
        pixels = torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8)
        window = Interval()
        for batch in (pixels, pixels.to(device)):  # as nvJPEG leaves them
            stepper.step(iter([TrainBatch(batch, 0)] * pieces), window)
        stepper.summarize(window, K)
        evaluate(accelerator, model, HeldOut(pixels, 3, 0), Normalization(), 2)
        mean_image_psnr(accelerator, pixels)
        mean_image_psnr(accelerator, pixels.to(device))
        moments = [state["exp_avg"] for state in optimizer.state.values()]
        assert moments
        assert {value.device for value in (*moments, *model.state_dict().values())} == {device}


def _picture(originals_B3HW: Tensor, reconstructions_B3HW: Tensor) -> bytes:
    assert originals_B3HW.is_cpu and reconstructions_B3HW.is_cpu
    return b""


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_training_on_an_accelerator_without_float64(name: str, pieces: int, tmp_path: Path) -> None:
    done = Child(train_and_evaluate, name, pieces, folder=tmp_path).wait()
    assert done.status == 0, done.err
