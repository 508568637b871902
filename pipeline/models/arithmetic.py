"""Which float32 arithmetic torch may use, a setting of the whole process, for as long as somebody needs it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Literal

import torch

Arithmetic = Literal["ieee", "tf32"]

_BACKENDS: Any = torch.backends  # its per-operation settings have no types
_OPERATIONS: dict[Arithmetic, tuple[Any, ...]] = {
    "ieee": (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv),
    "tf32": (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv),
}
"""Operations that torch may run on float32 input in TF32 or bfloat16, by what they are told."""


class _Shared:
    """One arithmetic at a time. Threads that want the same go in together; the last one restores the settings."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arithmetic: Arithmetic = "ieee"
        self._inside = 0
        self._before: list[tuple[Any, str]] = []

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
        wanted = ("none", "ieee") if self._arithmetic == "ieee" else ("tf32",)
        self._before = [
            (op, op.fp32_precision) for op in _OPERATIONS[self._arithmetic] if op.fp32_precision not in wanted
        ]
        for op, _ in self._before:
            op.fp32_precision = self._arithmetic

    def _restore(self) -> None:
        for op, precision in self._before:
            op.fp32_precision = "none"  # inherit, which is what a process-wide setting had the operation do
            if op.fp32_precision != precision:
                op.fp32_precision = precision


_shared = _Shared()


@contextlib.contextmanager
def float32_arithmetic(arithmetic: Arithmetic) -> Iterator[None]:
    """Run float32 matrix products and convolutions so, then put the caller's settings back.

    `ieee` is float32 throughout. TF32 and bfloat16 products keep 10 and 7 of 23 mantissa bits, enough to change
    which code is nearest; they are on for cuDNN convolutions by default, and for matrix products after
    `torch.set_float32_matmul_precision("medium")`: on GPUs, and on CPUs that have fast ones. `tf32` lets GPUs
    use it for both.

    A thread waits while another one needs the other arithmetic; it may enter its own again.

    Only the per-operation setting (https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html) is
    used. It never raises, it overrides what the older `allow_tf32` and `set_float32_matmul_precision` have
    set, and once it is restored those can be read again; reading them here could raise.
    """
    _shared.enter(arithmetic)
    try:
        yield
    finally:
        _shared.leave()
