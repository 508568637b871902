"""Nearest-code search: exact float32 under any global setting, in bounded memory.

Shape letters: N vectors, K codes, C their length, n rows of one chunk.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import TokenizerError

# Distances held at once. On a CPU they should stay in the cache: with K = 2048 one thread needs 220 ms at
# 16 MiB and 370 ms without chunks. An accelerator wants large kernels more than it wants locality.
_CPU_CHUNK_BYTES = 8 << 20
_ACCELERATOR_CHUNK_BYTES = 256 << 20

_BACKENDS: Any = torch.backends  # its per-operation settings have no types
_REDUCIBLE_OPS = (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv)
"""Operations that torch may run on float32 input in TF32 or bfloat16."""
_one_thread = threading.RLock()


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Run float32 matrix products and convolutions as float32, then put the caller's settings back.

    TF32 and bfloat16 products keep 10 and 7 of 23 mantissa bits, enough to change which code is nearest.
    They are on for cuDNN convolutions by default, and for matrix products after
    `torch.set_float32_matmul_precision("medium")`: on GPUs, and on CPUs that have fast ones.

    The settings are global to the process, so one thread is let in at a time; it may enter again.

    Only the per-operation setting (https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html) is
    used. It never raises, it overrides what the older `allow_tf32` and `set_float32_matmul_precision` have
    set, and once it is restored those can be read again; reading them here could raise.
    """
    with _one_thread:
        reduced = [(op, op.fp32_precision) for op in _REDUCIBLE_OPS if op.fp32_precision not in ("none", "ieee")]
        try:
            for op, _ in reduced:
                op.fp32_precision = "ieee"
            yield
        finally:
            for op, precision in reduced:
                op.fp32_precision = "none"  # inherit, which is what a process-wide setting had the operation do
                if op.fp32_precision != precision:
                    op.fp32_precision = precision


def check_same_device(z_NC: Tensor, codebook_KC: Tensor) -> None:
    """Raises TokenizerError when vectors and codebook are on different devices."""
    if z_NC.device != codebook_KC.device:
        raise TokenizerError(
            f"vectors are on {z_NC.device} and the codebook is on {codebook_KC.device}; "
            "move the model and its input to one device"
        )


@torch.no_grad()
def nearest_codes(z_NC: Tensor, codebook_KC: Tensor, *, chunk_bytes: int | None = None) -> Tensor:
    """Index of the nearest code of each vector by squared Euclidean distance, int64 [N].

    Minimises |e|² − 2 z·e, which differs from |z − e|² by |z|², the same for every code. Both arguments may
    have any floating dtype; they are compared in float32 whatever autocast or the global matmul precision
    say. The lowest index wins a tie. At most `chunk_bytes` of distances exist at a time, never all N × K.

    Raises TokenizerError when the arguments are on different devices.
    """
    check_same_device(z_NC, codebook_KC)
    N, K = len(z_NC), len(codebook_KC)
    rows = _chunk_rows(K, z_NC.device, chunk_bytes)
    indices_N = torch.empty(N, dtype=torch.int64, device=z_NC.device)
    with full_float32(), torch.autocast(z_NC.device.type, enabled=False):
        codes_KC = codebook_KC.float()
        squared_K = codes_KC.square().sum(dim=1)
        distances_nK = codes_KC.new_empty((min(rows, N), K))  # one buffer: fresh pages cost more than the sums
        for start in range(0, N, rows):
            z_nC = z_NC[start : start + rows].float()
            out_nK = distances_nK[: len(z_nC)]
            torch.addmm(squared_K, z_nC, codes_KC.T, alpha=-2, out=out_nK)
            torch.argmin(out_nK, dim=1, out=indices_N[start : start + rows])
    return indices_N


def _chunk_rows(K: int, device: torch.device, chunk_bytes: int | None) -> int:
    """Rows of K float32 distances that fit the chunk, at least one."""
    if chunk_bytes is None:
        chunk_bytes = _CPU_CHUNK_BYTES if device.type == "cpu" else _ACCELERATOR_CHUNK_BYTES
    return max(1, chunk_bytes // (4 * K))
