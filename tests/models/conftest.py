from typing import Any

import pytest
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Records the bytes of the largest tensor that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.bytes = max(self.bytes, value.numel() * value.element_size())
        return out


@pytest.fixture
def largest_tensor() -> LargestTensor:
    """A context manager that watches every operation of torch, backward passes included."""
    return LargestTensor()


@pytest.fixture
def modules_that_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch exchanges such tensors in place when a module moves, which fails while anything else refers to them."""

    def to(self: nn.Module, *args: Any, **named: Any) -> nn.Module:
        for module in self.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(value.detach().to(*args, **named))
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(*args, **named)
        return self

    monkeypatch.setattr(nn.Module, "to", to)
