"""The nearest codes of large codebooks: time, memory, and float64.

Shape letters: N vectors, K codes, C their length.
"""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from gpu.check import Bench, Line, skipped
from pipeline.models.networks.search import Search, nearest_codes
from pipeline.models.networks.search_fused import FusedSearch

_TIE = 2e-6
"""Of squared lengths: what is nearer by less, float32 cannot tell."""
_COMPARED = 256
"""Vectors that are compared with float64."""


def the_search(bench: Bench) -> Iterator[Line]:
    """Random vectors and codes of the lengths that published tokenizers have, by torch and as jobs search."""
    vectors, sizes = (64 * 256, (16_384, 65_536, 262_144)) if bench.on_gpu else (512, (1024, 4096))
    searches: dict[str, Search] = {"torch": nearest_codes}
    if bench.on_gpu:
        try:
            fused = FusedSearch()
            searches[fused.name] = fused
        except ImportError as error:
            yield skipped("the search in Triton", str(error))
    for K in sizes:
        for C in (8, 64):
            for name, search in searches.items():
                yield _searched(bench, f"the search, {name}, K = {K:,}, C = {C}", search, (vectors, K, C))


def _searched(bench: Bench, what: str, search: Search, size: tuple[int, int, int]) -> Line:
    N, K, C = size
    generator = torch.Generator(bench.device).manual_seed(K + C)
    codes_KC = torch.randn(K, C, device=bench.device, generator=generator)
    z_NC = torch.randn(N, C, device=bench.device, generator=generator)
    found_N = search(z_NC, codes_KC)
    _wait(bench)
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device) if bench.on_gpu else 0
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        found_N = search(z_NC, codes_KC)
        _wait(bench)
        best = min(best, time.perf_counter() - started)
    memory = torch.cuda.max_memory_allocated(bench.device) - before if bench.on_gpu else 0
    excess = _excess(z_NC[:_COMPARED], codes_KC, found_N[:_COMPARED])
    figures = (
        f"{1e3 * best:.2f} ms for {N:,} vectors, {memory / 2**20:,.0f} MiB; farther than in float64 by {excess:.1e}"
    )
    return Line(what, excess < _TIE, figures)


def _excess(z_nC: Tensor, codes_KC: Tensor, found_n: Tensor) -> float:
    """By how much a chosen code is farther than the nearest one, at most, in float64 and of the squared lengths."""
    z_nC, codes_KC = z_nC.double(), codes_KC.double()
    distances_nK = codes_KC.square().sum(dim=1) - 2 * z_nC @ codes_KC.T
    excess_n = distances_nK.gather(1, found_n[:, None])[:, 0] - distances_nK.min(dim=1).values
    lengths_n = z_nC.square().sum(dim=1) + codes_KC[found_n].square().sum(dim=1)
    return float((excess_n / lengths_n).max())


def _wait(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize(bench.device)
