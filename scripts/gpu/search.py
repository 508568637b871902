"""The nearest codes of large codebooks: time, memory, and float64.

Shape letters: N vectors, K codes, C their length.
"""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from gpu.check import Bench, Line
from pipeline.models.networks.search import nearest_codes

_TIE = 1e-5
_COMPARED = 256
"""Vectors that are compared with float64."""


def the_search(bench: Bench) -> Iterator[Line]:
    """Random vectors and codes of the lengths that published tokenizers have."""
    vectors, sizes = (64 * 256, (16_384, 65_536, 262_144)) if bench.on_gpu else (512, (1024, 4096))
    for K in sizes:
        for C in (8, 64):
            yield _searched(bench, vectors, K, C)


def _searched(bench: Bench, N: int, K: int, C: int) -> Line:
    generator = torch.Generator(bench.device).manual_seed(K + C)
    codes_KC = torch.randn(K, C, device=bench.device, generator=generator)
    z_NC = torch.randn(N, C, device=bench.device, generator=generator)
    found_N = nearest_codes(z_NC, codes_KC)
    _wait(bench)
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device) if bench.on_gpu else 0
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        found_N = nearest_codes(z_NC, codes_KC)
        _wait(bench)
        best = min(best, time.perf_counter() - started)
    memory = torch.cuda.max_memory_allocated(bench.device) - before if bench.on_gpu else 0
    excess = _excess(z_NC[:_COMPARED], codes_KC, found_N[:_COMPARED])
    return Line(
        f"the search, K = {K:,}, C = {C}",
        excess < _TIE,
        f"{1e3 * best:.2f} ms for {N:,} vectors, {memory / 2**20:,.0f} MiB; farther than in float64 by {excess:.1e}",
    )


def _excess(z_nC: Tensor, codes_KC: Tensor, found_n: Tensor) -> float:
    """By how much of its distance a chosen code is farther than the nearest one, at most; in float64."""
    distances_nK = torch.cdist(z_nC.double(), codes_KC.double()).square()
    nearest_n = distances_nK.min(dim=1).values
    chosen_n = distances_nK.gather(1, found_n[:, None])[:, 0]
    return float(((chosen_n - nearest_n) / nearest_n).max())


def _wait(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize(bench.device)
