"""Nearest-code search: exact float32 under any global setting, in bounded memory.

Shape letters: N vectors, K codes, C their length, n rows and k columns of one chunk of distances.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.arithmetic import float32_arithmetic

Search = Callable[[Tensor, Tensor], Tensor]
"""The index of the nearest code of each vector, int64 [N], of vectors [N, C] and a codebook [K, C]."""

# Distances held at once, and codes compared at once. On a CPU both should stay in the caches of a core: a codebook of
# 16,384 codes of length 256, fetched anew for every few vectors, takes twice as long as in blocks. An accelerator wants
# large kernels more than it wants locality.
_CPU_CHUNK_BYTES = 2 << 20
_CPU_CODES_BYTES = 512 << 10
_ACCELERATOR_CHUNK_BYTES = 256 << 20

# Blocks of codes are multiples of it: kernels may add up odd columns in another order, and equal codes would differ.
_COLUMNS = 64


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
    N = len(z_NC)
    rows, columns = _chunk_shape(codebook_KC, chunk_bytes)
    indices_N = torch.empty(N, dtype=torch.int64, device=z_NC.device)
    with float32_arithmetic("ieee"), torch.autocast(z_NC.device.type, enabled=False):
        codes_KC = codebook_KC.float()
        squared_K = codes_KC.square().sum(dim=1)
        buffer = codes_KC.new_empty(min(rows, N) * columns)  # one for all: fresh pages cost more than the sums
        blocks = list(zip(codes_KC.split(columns), squared_K.split(columns), strict=True))
        for start in range(0, N, rows):
            z_nC = z_NC[start : start + rows].float()
            indices_N[start : start + rows] = _nearest_of_blocks(z_nC, blocks, buffer)
    return indices_N


def _nearest_of_blocks(z_nC: Tensor, blocks: Sequence[tuple[Tensor, Tensor]], buffer: Tensor) -> Tensor:
    """Index of the nearest code of each vector, int64 [n]; `blocks` are codes [k, C] with their squares [k]."""
    n, first = len(z_nC), 0
    nearest_n = z_nC.new_zeros(n, dtype=torch.int64)
    least_n = z_nC.new_full((n,), torch.inf)
    for codes_kC, squared_k in blocks:
        distances_nk = buffer[: n * len(codes_kC)].view(n, -1)
        torch.addmm(squared_k, z_nC, codes_kC.T, alpha=-2, out=distances_nk)
        index_n = _argmin(distances_nk)
        if len(blocks) == 1:
            return index_n
        found_n = distances_nk.gather(1, index_n[:, None])[:, 0]
        nearer_n = found_n < least_n  # equally near is not nearer: the lowest index wins
        nearest_n[nearer_n] = index_n[nearer_n] + first
        least_n = torch.minimum(least_n, found_n)
        first += len(codes_kC)
    return nearest_n


def _argmin(distances_nk: Tensor) -> Tensor:
    """Column of the smallest number of each row, the first one of equal ones; int64 [n]."""
    if distances_nk.is_cpu:
        return torch.from_numpy(np.argmin(distances_nk.numpy(), axis=1))  # a tenth of what torch.argmin takes
    return torch.argmin(distances_nk, dim=1)


def _chunk_shape(codebook_KC: Tensor, chunk_bytes: int | None) -> tuple[int, int]:
    """Rows and columns of the float32 distances that exist at once, at least one of each."""
    K, C = codebook_KC.shape
    distances = (chunk_bytes or (_CPU_CHUNK_BYTES if codebook_KC.is_cpu else _ACCELERATOR_CHUNK_BYTES)) // 4
    block = max(_COLUMNS, _CPU_CODES_BYTES // (4 * C) // _COLUMNS * _COLUMNS) if codebook_KC.is_cpu else K
    columns = max(1, min(K, block, distances))
    return max(1, distances // columns), columns
