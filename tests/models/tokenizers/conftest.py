from typing import Any

import pytest
from torch import nn


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
