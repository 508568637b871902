"""Nearest-code search: exact float32 under any global setting, in bounded memory.

Shape letters: N vectors, K codes, C their length, n rows of one chunk.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.arithmetic import float32_arithmetic

# Distances held at once. On a CPU they should stay in the cache of a core, but a product of few rows is slow. An
# accelerator wants large kernels more than it wants locality.
_CPU_CHUNK_BYTES = 1 << 20
_CPU_LEAST_ROWS = 32
_ACCELERATOR_CHUNK_BYTES = 256 << 20


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
    say. The lowest index wins a tie. At most `chunk_bytes` of distances exist at a time, never all N × K. Any
    number of threads may search at once.

    Raises TokenizerError when the arguments are on different devices.
    """
    check_same_device(z_NC, codebook_KC)
    N, K = len(z_NC), len(codebook_KC)
    rows = _chunk_rows(K, z_NC.device, chunk_bytes)
    indices_N = torch.empty(N, dtype=torch.int64, device=z_NC.device)
    with float32_arithmetic("ieee"), torch.autocast(z_NC.device.type, enabled=False):
        codes_KC = codebook_KC.float()
        squared_K = codes_KC.square().sum(dim=1)
        distances_nK = codes_KC.new_empty((min(rows, N), K))  # one buffer: fresh pages cost more than the sums
        for start in range(0, N, rows):
            z_nC = z_NC[start : start + rows].float()
            out_nK = distances_nK[: len(z_nC)]
            torch.addmm(squared_K, z_nC, codes_KC.T, alpha=-2, out=out_nK)
            _argmin(out_nK, indices_N[start : start + rows])
    return indices_N


def _argmin(distances_nK: Tensor, out_n: Tensor) -> None:
    """Column of the smallest number of each row, the first one of equal ones."""
    if distances_nK.is_cpu:
        np.argmin(distances_nK.numpy(), axis=1, out=out_n.numpy())  # a tenth of what torch.argmin takes
    else:
        torch.argmin(distances_nK, dim=1, out=out_n)


def _chunk_rows(K: int, device: torch.device, chunk_bytes: int | None) -> int:
    """Rows of K float32 distances that fit the chunk, at least one."""
    if chunk_bytes is not None:
        return max(1, chunk_bytes // (4 * K))
    if device.type == "cpu":
        return max(_CPU_LEAST_ROWS, _CPU_CHUNK_BYTES // (4 * K))
    return max(1, _ACCELERATOR_CHUNK_BYTES // (4 * K))
