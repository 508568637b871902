"""The kernels of the search: in Triton's interpreter, where there is Triton, and on a GPU, where there is one."""

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import pytest
import torch
from interpreted import interpreted
from torch import Tensor

from pipeline.models.networks import search_fused
from pipeline.models.networks.search import nearest_codes
from pipeline.models.networks.search_fused import FusedSearch, _margin, _tf32
from pipeline.models.networks.search_trial import equally_near

SHAPES = [(1, 8), (77, 8), (100, 14), (130, 32), (300, 64), (70, 100), (96, 256)]
"""K and C: whole tiles and parts of them, one part of a code and several."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at(values: Tensor, places: Mapping[tuple[int, ...], float]) -> Tensor:
    """A copy with other numbers in some places."""
    changed = values.clone()
    for place, value in places.items():
        changed[place] = value
    return changed


def cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Vectors and codes by name."""
    nan, inf, z, e = math.nan, math.inf, numbers(60, 64, seed=1), numbers(150, 64, seed=2)
    odd = {(3,): nan, (5, 2): inf, (6, 1): -inf, (7, 0): inf, (7, 1): -inf, (8, 63): nan}
    neighbours = e[:75].repeat_interleave(2, 0)
    neighbours[1::2] *= 1 + 2**-23
    return {
        **{f"{K}x{C}": (numbers(60, C, seed=K), numbers(K, C, seed=C)) for K, C in SHAPES},
        "copies": (e[:50].clone(), e[:50].repeat(3, 1)),
        "one code, many times": (z, e[:1].repeat(150, 1)),
        "zeros": (torch.zeros(60, 64), torch.zeros(150, 64)),
        "neighbours": (e[:60] + 1e-3 * z, neighbours),
        "vectors that are not finite": (at(z, odd), e),
        "NaN in codes": (z, at(e, {(77, 2): nan, (100,): nan})),
        "inf in a code": (z, at(e, {(77, 2): inf})),
        "codes too long for a distance": (z, torch.full((150, 64), 3e38)),
        "one vector": (z[:1], e),
        "a tiny scale": (1e-20 * z, 1e-20 * e),
    }


class Launches:
    """Kernels that compute nothing, and note whether they are told to fuse."""

    def __init__(self) -> None:
        self.fused: dict[str, object] = {}

    def __getattr__(self, name: str) -> Mapping[object, Callable[..., None]]:
        launches = self

        class Kernel(dict[object, Callable[..., None]]):
            def __missing__(self, grid: object) -> Callable[..., None]:
                return lambda *arguments, **options: launches.fused.update({name: options.get("enable_fp_fusion")})

        return Kernel()


Found = Mapping[str, tuple[list[int], int]]
"""Indices for each case, and how many vectors were searched again."""


@pytest.fixture(scope="module")
def found() -> Found:
    """What the kernels find in all cases, in one process."""
    return interpreted(found_in_all)


def found_in_all() -> Found:
    again: list[int] = []

    class Noting(search_fused._Work):
        def _settle(self, least_SN: Tensor, second_SN: Tensor, index_SN: Tensor) -> None:
            super()._settle(least_SN, second_SN, index_SN)
            again.append(int(self._count))

    search_fused._FEW, search_fused._Work = 1, Noting  # type: ignore[misc]
    search = FusedSearch()
    return {name: (search(*case).tolist(), again[-1]) for name, case in cases().items()}


def check(z_NC: Tensor, codebook_KC: Tensor, found_N: Tensor) -> None:
    """A search in float64 finds the same, but where float32 cannot tell."""
    distances_NK = codebook_KC.double().square().sum(1) - 2 * z_NC.double() @ codebook_KC.double().T
    nearest_N = distances_NK.argmin(dim=1)
    differ_N = found_N != nearest_N
    assert found_N.dtype == torch.int64
    assert equally_near(z_NC[differ_N], codebook_KC, found_N[differ_N], nearest_N[differ_N])


@pytest.mark.parametrize("name", [*(f"{K}x{C}" for K, C in SHAPES), "neighbours", "one vector", "a tiny scale"])
def test_it_finds_what_a_search_in_float64_finds(found: Found, name: str) -> None:
    check(*cases()[name], torch.tensor(found[name][0]))


@pytest.mark.parametrize(
    "name",
    [
        "copies",
        "one code, many times",
        "zeros",
        "vectors that are not finite",
        "NaN in codes",
        "inf in a code",
        "codes too long for a distance",
    ],
)
def test_ties_and_numbers_that_are_not_finite_are_as_torch_has_them(found: Found, name: str) -> None:
    z_NC, codebook_KC = cases()[name]
    expected_N = torch.addmm(codebook_KC.square().sum(1), z_NC, codebook_KC.T, alpha=-2).argmin(dim=1)
    assert found[name][0] == expected_N.tolist()


def test_few_vectors_are_searched_twice(found: Found) -> None:
    close = {name: again for name, (_, again) in found.items()}
    assert all(close[f"{K}x{C}"] <= 1 for K, C in SHAPES)
    assert close["copies"] == 50
    assert close["vectors that are not finite"] == 5
    assert close["NaN in codes"] == 60


@pytest.mark.parametrize("C", [8, 64, 1000])
def test_the_margin_covers_what_tf32_loses(C: int) -> None:
    """Of products whose operands lose what a tensor core does not read; it adds up a little worse than float32 does."""
    z_NC, codes_KC = numbers(200, C), numbers(300, C, seed=1)
    (z_big, z_small), (e_big, e_small) = ((_tf32(v), v - _tf32(v)) for v in (z_NC, codes_KC))
    assert torch.equal(_tf32(z_big), z_big)
    z_read, e_read = (((v.view(torch.int32)) & -0x2000).view(torch.float32) for v in (z_small, e_small))
    products_NK = z_read @ e_big.T + z_big @ e_read.T + z_big @ e_big.T
    error_N = 2 * (products_NK.double() - z_NC.double() @ codes_KC.double().T).abs().amax(dim=1)
    margin_N = _margin(z_NC, codes_KC.square().sum(dim=1))
    assert (2 * error_N < margin_N).all()
    assert (margin_N < 1e-3 * z_NC.norm(dim=1) * codes_KC.norm(dim=1).max() * max(1, C / 64)).all()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_gpu
@pytest.mark.parametrize("name", list(cases()))
def test_on_a_gpu_it_finds_what_torch_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.models.networks.search_fused._FEW", 1)
    z_NC, codebook_KC = (values.cuda() for values in cases()[name])
    found_N, expected_N = FusedSearch()(z_NC, codebook_KC), nearest_codes(z_NC, codebook_KC)
    differ_N = found_N != expected_N
    assert equally_near(z_NC[differ_N], codebook_KC, found_N[differ_N], expected_N[differ_N])


@needs_gpu
def test_on_a_gpu_it_needs_no_matrix_of_distances() -> None:
    z_NC, codebook_KC = numbers(65_536, 64).cuda(), numbers(16_384, 64, seed=1).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found_N = FusedSearch()(z_NC, codebook_KC)
    assert torch.cuda.max_memory_allocated() - before < 64 << 20 < len(z_NC) * len(codebook_KC) * 4
    differ_N = found_N != (expected_N := nearest_codes(z_NC, codebook_KC))
    assert differ_N.float().mean() < 1e-3
    assert equally_near(z_NC[differ_N], codebook_KC, found_N[differ_N], expected_N[differ_N])


def test_each_launch_says_how_sums_of_products_are_rounded() -> None:
    """Triton's own choice differs between its versions, and so would indices and tokens."""
    launches = Launches()
    search_fused._Work(numbers(8, 16), numbers(9, 16), launches).run()
    assert launches.fused == {"two_nearest": True, "settle": True, "nearest_of_listed": True}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
@pytest.mark.parametrize(("capability", "shared"), [(80, 163 << 10), (86, 99 << 10), (90, 227 << 10)])
def test_triton_compiles_them_for_gpus_whose_shared_memory_they_fit(capability: int, shared: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from pipeline.models.networks import search_kernels

    whole = {"index_SN": "*i32", "close_N": "*i32", "count": "*i32", "keys_N": "*i64"}
    sizes = dict.fromkeys(("N", "K", "S", "tiles_each"), "i32")
    for C in (8, 14, 64, 256):
        for kernel, tiles in [
            (search_kernels.two_nearest, search_fused._coarse_tiles(C)),
            (search_kernels.nearest_of_listed, search_fused._exact_tiles(C)),
        ]:
            given = {"C": C, **tiles.shape()}
            constants = {name: value for name, value in given.items() if name in kernel.arg_names}
            options = {name: value for name, value in given.items() if name not in constants}
            types = {
                name: "constexpr" if name in constants else (whole | sizes).get(name, "*fp32")
                for name in kernel.arg_names
            }
            places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
            compiled = compile(
                ASTSource(kernel, types, places), target=GPUTarget("cuda", capability, 32), options=options
            )
            assert "cubin" in compiled.asm
            assert compiled.metadata.shared <= shared
