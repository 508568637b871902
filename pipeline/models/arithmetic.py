"""Which float32 arithmetic torch may use, a setting of the whole process, for as long as somebody needs it."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

Arithmetic = Literal["ieee", "tf32"]

_BACKENDS: Any = torch.backends  # its per-operation settings have no types
_OPERATIONS: tuple[Any, ...] = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,  # which no tokenizer uses, but must agree with convolutions where somebody reads `allow_tf32`
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
)
"""Operations that torch may run on float32 input in TF32 or bfloat16."""
_OF_GPUS = 3
"""How many of them `tf32` is about."""


class _Shared:
    """One arithmetic at a time. Threads that want the same go in together; the last one restores the settings."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arithmetic: Arithmetic = "ieee"
        self._inside = 0
        self._before: list[tuple[Any, str]] = []
        self._older: tuple[bool | None, str | None] = (None, None)

    def enter(self, arithmetic: Arithmetic) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or self._arithmetic == arithmetic)
            if not self._inside:
                self._arithmetic = arithmetic
                self._set()
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if not self._inside:
                self._restore()
                self._changed.notify_all()

    def _set(self) -> None:
        exact = self._arithmetic == "ieee"
        self._before = [(op, op.fp32_precision) for op in _OPERATIONS]
        self._older = convolutions, products = _older_settings()
        if convolutions is not None and convolutions == exact:
            _BACKENDS.cudnn.allow_tf32 = not exact
        if products is not None and (products == "highest") != exact:
            torch.set_float32_matmul_precision("highest" if exact else "high")
        wanted = ("none", "ieee") if exact else ("tf32",)
        for op in _OPERATIONS if exact else _OPERATIONS[:_OF_GPUS]:
            if op.fp32_precision not in wanted:
                op.fp32_precision = self._arithmetic
        if not exact:
            _put_back(self._before[_OF_GPUS:])  # for CPUs the older settings would change more than was asked for

    def _restore(self) -> None:
        convolutions, products = self._older
        if convolutions is not None:
            _BACKENDS.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        _put_back(self._before)


def _put_back(before: Sequence[tuple[Any, str]]) -> None:
    for op, precision in before:
        if op.fp32_precision != precision:
            op.fp32_precision = "none"  # inherit, which is what a process-wide setting had the operation do
            if op.fp32_precision != precision:
                op.fp32_precision = precision


def _older_settings() -> tuple[bool | None, str | None]:
    """`torch.backends.cudnn.allow_tf32` and the global matmul precision; None for one that contradicts what the
    operations were told, at which torch raises."""
    convolutions, products = None, None
    with contextlib.suppress(RuntimeError):
        convolutions = bool(_BACKENDS.cudnn.allow_tf32)
    with contextlib.suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    return convolutions, products


_shared = _Shared()


@contextlib.contextmanager
def float32_arithmetic(arithmetic: Arithmetic) -> Iterator[None]:
    """Run float32 matrix products and convolutions so, then put the caller's settings back.

    `ieee` is float32 throughout. TF32 and bfloat16 products keep 10 and 7 of 23 mantissa bits, enough to change
    which code is nearest; they are on for cuDNN convolutions by default, and for matrix products after
    `torch.set_float32_matmul_precision("medium")`: on GPUs, and on CPUs that have fast ones. `tf32` lets GPUs
    use it for both.

    A thread waits while another one needs the other arithmetic; it may enter its own again.

    The per-operation settings (https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html) decide. The older
    ones, `allow_tf32` and `set_float32_matmul_precision`, are set to agree with them, for torch's compiler reads those,
    and torch raises where both say different things. A caller who has mixed both so already keeps the older ones.
    """
    _shared.enter(arithmetic)
    try:
        yield
    finally:
        _shared.leave()
