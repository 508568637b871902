"""The way to a GPU and back, with tensors that have no values: what goes over the bus, and how often the host waits."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from pretended_gpu import GPU
from pretended_gpu import Stream as PretendedStream
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.models import SimpleVQVAE
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.models.lane import Lane
from pipeline.models.layouts.cuts import CUTS
from pipeline.models.layouts.layout import BlockLayout
from pipeline.models.layouts.scales import Scales
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.tokenizers import network
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.records import Normalization

pytest_plugins = ["pretended_gpu"]

CUDA = torch.device("cuda", 0)
CODER = Coder(widths=(32,), depth=1, attention=(False,), middle_attention=False)
ARCHITECTURE = Architecture(
    encoder=CODER, decoder=CODER, stem=32, latent=8, quant_kernel=3, vocab_size=32, embedding_dim=4
)

TOKENIZERS: dict[str, tuple[Callable[[], torch.nn.Module], BlockLayout]] = {
    "one block": (lambda: SimpleVQVAE(64, 8, 12), CUTS["raster"]),
    "four blocks": (lambda: SimpleVQVAE(64, 8, 12, cosine=True), CUTS["quadrants"]),
    "several scales": (lambda: Vqgan(ARCHITECTURE, patch_nums=(1, 2, 4)), Scales((1, 2, 4))),
}


class Traffic(TorchDispatchMode):
    """Counts copies between the host and the device, and what is allocated in pinned memory."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if func.overloadpacket in (aten.copy_, aten._to_copy, aten.to):
            source = args[1] if func.overloadpacket is aten.copy_ else args[0]
            if source.device != out.device:
                self.counts["up" if out.device.type == "cuda" else "down"] += 1
        if kwargs and kwargs.get("pin_memory"):
            self.counts["pinned"] += 1
        return out


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """All operations in a pretended world with a GPU; what the host waits for is counted, too."""
    counting = Traffic()

    class Stream:
        def __init__(self, device: torch.device) -> None:
            assert device == CUDA

    class Event:
        def __init__(self, blocking: bool = False) -> None:
            assert blocking, "a thread that waits would spin"

        def record(self, stream: Stream) -> None:
            pass

        def synchronize(self) -> None:
            counting.counts["waits"] += 1

    for name, pretended in [("Stream", Stream), ("Event", Event), ("stream", lambda stream: nullcontext())]:
        monkeypatch.setattr(torch.cuda, name, pretended)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(FakeTensor, "numpy", lambda self: np.zeros(self.shape, np.int64), raising=False)
    monkeypatch.setattr(network, "kernels_work", lambda device: True)
    with FakeTensorMode(allow_non_fake_inputs=True), counting:
        yield counting


@pytest.mark.usefixtures("modules_that_move")
@pytest.mark.parametrize(("make", "layout"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_each_batch_goes_up_once_and_down_once_with_one_wait(
    make: Callable[[], torch.nn.Module], layout: BlockLayout, traffic: Traffic
) -> None:
    """Tensors without values raise where the host looks at one, which would be a wait of its own."""
    tokenizer = NetworkTokenizer(make().eval(), layout, Normalization(), {}).to(CUDA, "bf16")  # type: ignore[arg-type]
    encoder = BatchEncoder(tokenizer, CUDA, cores=1)
    side = 4 * tokenizer.downsampling
    pixels = torch.zeros(3, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    piece = encoder._encode(pixels, None)
    assert piece.tokens.shape == (3, sum(layout.block_lengths((4, 4))))
    assert traffic.counts["pinned"] == 2, "pixels and tokens"
    for smaller in (pixels, pixels[:2]):
        traffic.counts.clear()
        encoder._encode(smaller, None)
        assert traffic.counts == {"up": 1, "down": 1, "waits": 1}


def test_pixels_in_pinned_memory_go_up_from_there(traffic: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.zeros(3, 8, 8, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    copied: list[Tensor] = []
    monkeypatch.setattr(FakeTensor, "is_pinned", lambda self: True, raising=False)
    tokenizer = NetworkTokenizer(SimpleVQVAE(64, 8, 12).eval(), CUTS["raster"], Normalization(), {})
    encoder = BatchEncoder(tokenizer, CUDA, cores=1)
    encoder._encode_pixels = lambda img_B3HW: [img_B3HW[:, 0, 0].long()]
    copy = Tensor.copy_
    monkeypatch.setattr(Tensor, "copy_", lambda self, *args, **named: copied.append(self) or copy(self, *args, **named))
    encoder._encode(pixels, None)
    assert [(tensor.dtype, tensor.device.type) for tensor in copied] == [(torch.int64, "cpu")], "only the tokens"


def test_what_other_streams_were_given_is_there_before_the_first_batch(
    default_stream: PretendedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the weights, which are moved and laid out by whoever loads them."""
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: None)
    weights = torch.zeros(4, device=GPU) + 1
    Lane(GPU)
    assert weights.memory.tolist() == [1, 1, 1, 1]  # type: ignore[attr-defined]


def test_pixels_are_let_go_of_when_the_next_batch_has_shown_that_the_gpu_works(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freed behind a failure, pinned memory makes torch abort the process before it has given back its claims."""
    monkeypatch.setattr(FakeTensor, "is_pinned", lambda self: True, raising=False)
    lane, freed = Lane(CUDA), list[int]()

    def run(number: int, encode: Callable[[Tensor], Tensor]) -> None:
        pixels = torch.zeros(3, 8, 8, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        weakref.finalize(pixels, freed.append, number)
        lane.run(pixels, None, encode)

    def tokens(img_B3HW: Tensor) -> Tensor:
        return img_B3HW[:, 0, 0, 0].long()

    def fail(img_B3HW: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    run(0, tokens)
    assert freed == []
    run(1, tokens)
    assert freed == [0]
    with pytest.raises(RuntimeError):
        run(2, fail)
    assert 1 not in freed
