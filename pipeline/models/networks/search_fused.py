"""Nearest-code search on a GPU without its matrix of distances, which takes longer to write and read than to compute.

Tensor cores find the two least distances of each vector, with an error bound; where these are too close to tell apart,
as few are, the vector is searched again in float32.

Shape letters: N vectors, K codes, C their length, S splits of the codes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.models.networks.search import nearest_codes
from pipeline.models.networks.triton_options import FUSED

# Fewer distances than these take torch no longer than it takes to launch the kernels here.
_FEW = 1 << 25

# Tiles of codes that one program goes through at least, where few vectors are shared among all.
_FEW_TILES = 4

_INDEX = 0x7FFFFFFF
_TINY = 1e-37  # products that underflow


@dataclass(frozen=True)
class _Tiles:
    """What one program works on at a time; see `search_kernels`."""

    rows: int
    codes: int
    parts: int
    warps: int
    stages: int

    def shape(self) -> dict[str, int]:
        """As a kernel takes it."""
        tile = {"TN": self.rows, "TK": self.codes, "TC": self.parts}
        return {**tile, "num_warps": self.warps, "num_stages": self.stages, **FUSED}


class FusedSearch:
    """`nearest_codes` for CUDA tensors: the same indices, except where float32 cannot tell which code is nearer.

    Any number of threads may search at once.

    Raises whatever Triton raises where it or its compiler is missing, when made or at the first search.
    """

    def __init__(self) -> None:
        # Triton comes with torch on Linux with CUDA only.
        import triton

        from pipeline.models.networks import search_kernels

        self.name = f"triton {triton.__version__}"
        """For commit records."""
        self._kernels: Any = search_kernels

    @torch.no_grad()
    def __call__(self, z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
        """Index of the nearest code of each vector, int64 [N], as `nearest_codes` finds it."""
        N, (K, C) = len(z_NC), codebook_KC.shape
        if N * K < _FEW or max(N, K * C) >= _INDEX:
            return nearest_codes(z_NC, codebook_KC)
        with torch.cuda.device_of(z_NC), torch.autocast(z_NC.device.type, enabled=False):
            return _Work(z_NC.float().contiguous(), codebook_KC.float().contiguous(), self._kernels).run()


class _Work:
    """One search."""

    def __init__(self, z_NC: Tensor, codes_KC: Tensor, kernels: Any) -> None:
        self._z_NC = z_NC
        self._codes_KC = codes_KC
        self._squared_K = codes_KC.square().sum(dim=1)
        self._kernels = kernels
        N = len(z_NC)
        self._processors = _processors(z_NC.device)
        self._keys_N = z_NC.new_empty(N, dtype=torch.int64)
        self._close_N = z_NC.new_empty(N, dtype=torch.int32)
        self._count = z_NC.new_zeros(1, dtype=torch.int32)

    def run(self) -> Tensor:
        """The indices."""
        self._settle(*self._two_nearest())
        self._search_close()
        return self._keys_N.bitwise_and_(_INDEX)

    def _two_nearest(self) -> tuple[Tensor, Tensor, Tensor]:
        """Least and second least distance of each vector in each split, and the index of the least, [S, N] each."""
        N, (K, C) = len(self._z_NC), self._codes_KC.shape
        tiles = _coarse_tiles(C)
        programs, all_tiles = _ceil(N, tiles.rows), _ceil(K, tiles.codes)
        each = _ceil(all_tiles, _splits(programs, all_tiles, self._processors))
        S = _ceil(all_tiles, each)
        least_SN, second_SN = self._z_NC.new_empty(2, S, N)
        index_SN = least_SN.new_empty(S, N, dtype=torch.int32)
        big_KC = _tf32(self._codes_KC)
        self._kernels.two_nearest[(programs, S)](
            self._z_NC, big_KC, self._codes_KC - big_KC, self._squared_K, least_SN, second_SN, index_SN, N, K, each,
            C=C, **tiles.shape(),
        )  # fmt: skip
        return least_SN, second_SN, index_SN

    def _settle(self, least_SN: Tensor, second_SN: Tensor, index_SN: Tensor) -> None:
        S, N = least_SN.shape
        margin_N = _margin(self._z_NC, self._squared_K)
        self._kernels.settle[(_ceil(N, 128),)](
            least_SN,
            second_SN,
            index_SN,
            margin_N,
            self._keys_N,
            self._close_N,
            self._count,
            N,
            S,
            TN=128,
            **FUSED,
        )

    def _search_close(self) -> None:
        K, C = self._codes_KC.shape
        tiles = _exact_tiles(C)
        each = max(_FEW_TILES, _ceil(_ceil(K, tiles.codes), 2 * self._processors))
        self._kernels.nearest_of_listed[(4 * self._processors,)](
            self._z_NC, self._codes_KC, self._squared_K, self._close_N, self._count, self._keys_N, K, each,
            C=C, **tiles.shape(),
        )  # fmt: skip


def _margin(z_NC: Tensor, squared_K: Tensor) -> Tensor:
    """How far apart two distances must be, float32 [N], for tensor cores to be right about which one is less.

    The unit is 2^-22 |z| |e|, of the norms of a vector and the longest code. Products of numbers split in two are off
    by 5 units in all, each of 3 C / 8 instructions truncates by 9 / 4 at most, and a search in float32 is itself off by
    C / 4. A distance doubles that, and two of them are compared.
    """
    C = _padded(z_NC.shape[1])
    units = 4 * (8 + 9 / 4 * 3 / 8 * C + C / 4)
    norm_N: Tensor = torch.linalg.vector_norm(z_NC, dim=1)
    return norm_N * (squared_K.max().sqrt() * (units * 2.0**-22)) + _TINY


def _tf32(values: Tensor) -> Tensor:
    """As of `search_kernels`."""
    return (values.view(torch.int32) + 0x1000).bitwise_and_(-0x2000).view(torch.float32)


def _coarse_tiles(C: int) -> _Tiles:
    """Of those tried on an H200 the fastest, or nearly; they fit in the shared memory of any GPU since the RTX 3090."""
    whole = _padded(C)
    return _Tiles(64, 64, 64, 4, 2) if whole == 64 else _Tiles(64, 64, min(whole, 32), 4, 3)


def _exact_tiles(C: int) -> _Tiles:
    return _Tiles(64, 64, min(_padded(C), 32), 4, 3)


def _padded(C: int) -> int:
    """The power of two that C is padded to, at least what tensor cores multiply at once."""
    return max(16, 1 << (C - 1).bit_length())


def _splits(programs: int, tiles: int, processors: int) -> int:
    """Into how many splits the codes are cut, so that two programs or more are there for each processor."""
    return max(1, min(tiles, _ceil(2 * processors, programs)))


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
