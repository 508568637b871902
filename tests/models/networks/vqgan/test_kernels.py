"""Our kernels in Triton's interpreter, where there is Triton, and on a GPU, where there is one."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from interpreted import interpreted
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.networks.vqgan import blocks, norms

Case = tuple[torch.dtype, tuple[int, ...], float]
"""Dtype, shape, and what is allowed beside float64, of a value of 1 or of the value."""

LONG = (33, 32)
"""Height and width of two stretches of positions, of the second only a part."""


def cases(long: tuple[int, int] = LONG) -> list[Case]:
    return [
        (torch.float32, (1, 160, 1, 1), 2e-5),  # one position
        (torch.float32, (1, 96, *long), 2e-5),
        (torch.bfloat16, (2, 64, 5, 7), 0.04),  # the interpreter rounds towards zero
    ]


def errors(device: str, long: tuple[int, int] = LONG) -> dict[str, float]:
    """The largest error of each kernel, in units of what is allowed."""
    from pipeline.models.networks.vqgan import kernels

    found: dict[str, float] = {}
    for dtype, shape, tolerance in cases(long):
        x, h = (numbers(*shape, seed=seed).to(device, dtype) * 3 + 5 for seed in (0, 1))
        x, h = (value.contiguous(memory_format=torch.channels_last) for value in (x, h))
        weight, bias, added = (numbers(shape[1], seed=seed).to(device, dtype) for seed in (2, 3, 4))
        silu = dtype == torch.float32
        for extra in (None, added) if silu else (None,):
            ours = kernels.group_norm(x, weight, bias, 32, 1e-6, silu, extra)
            assert ours.is_contiguous(memory_format=torch.channels_last) and ours.dtype == dtype
            theirs = F.group_norm(summed(x, extra), 32, weight.double(), bias.double(), 1e-6)
            found[f"norm {dtype} {shape} {extra is None}"] = error(ours, F.silu(theirs) if silu else theirs) / tolerance
        for extra in (None, bias):
            ours = kernels.residual_sum(x, h, added, extra)
            exact = summed(x, extra) + summed(h, added)
            found[f"sum {dtype} {shape} {extra is None}"] = error(ours, exact) / tolerance
        found[f"bias {dtype} {shape}"] = error(kernels.with_bias(x.clone(), bias), summed(x, bias)) / tolerance
        wider = kernels.padded(x)
        assert wider.is_contiguous(memory_format=torch.channels_last) and wider.dtype == dtype
        found[f"padding {dtype} {shape}"] = float(not torch.equal(wider, F.pad(x, (0, 1, 0, 1)))) * 2
    return found


def summed(x: Tensor, added_D: Tensor | None) -> Tensor:
    return x.double() if added_D is None else x.double() + added_D.double()[:, None, None]


def error(ours: Tensor, exact: Tensor) -> float:
    return float(((ours.double() - exact).abs() / exact.abs().clamp(min=1)).max())


def difference_of_blocks(device: str) -> float:
    """What the kernels change in the result of a residual block, whose biases they add."""
    torch.manual_seed(0)
    block = blocks.Residual(64, 96).to(device, memory_format=torch.channels_last)
    x = numbers(1, 64, 5, 3, seed=0).to(device).contiguous(memory_format=torch.channels_last)
    before = blocks.fuses
    try:
        with torch.no_grad():
            blocks.fuses = norms.fuses = lambda x: False
            plain = block(x)
            blocks.fuses = norms.fuses = lambda x: True
            return float((block(x) - plain).abs().max())
    finally:
        blocks.fuses = norms.fuses = before


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["cpu", pytest.param("cpu, long", marks=pytest.mark.slow), "cuda"])
def found(request: pytest.FixtureRequest) -> Any:
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        return [errors("cuda"), difference_of_blocks("cuda")]
    return interpreted(on_this_processor, request.param == "cpu")


def on_this_processor(short: bool) -> Any:
    """Where `short` of shorter stretches: the interpreter takes its time for each program."""
    from pipeline.models.networks.vqgan import kernels

    if short:
        kernels._STRETCH = 64
    return [errors("cpu", (9, 8) if short else LONG), difference_of_blocks("cpu")]


def test_each_kernel_computes_what_float64_does(found: Any) -> None:
    assert len(found[0]) == 6 * len(cases()) - 1
    assert {name: off for name, off in found[0].items() if not off <= 1} == {}


def test_a_block_gives_what_it_gives_without_them(found: Any) -> None:
    assert found[1] < 1e-5


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_each_launch_says_how_sums_of_products_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own choice differs between its versions, and so would tokens."""
    from pipeline.models.networks.vqgan import kernels

    fused: dict[str, object] = {}

    class Noting(dict[object, Any]):
        def __init__(self, name: str) -> None:
            self._name = name

        def __missing__(self, grid: object) -> Any:
            return lambda *arguments, **options: fused.update({self._name: options.get("enable_fp_fusion")})

    names = ("_moments", "_factors", "_apply", "_sum", "_pad")
    for name in names:
        monkeypatch.setattr(kernels, name, Noting(name))
    x, weight = numbers(1, 32, 2, 2, seed=0).contiguous(memory_format=torch.channels_last), numbers(32, seed=1)
    kernels.group_norm(x, weight, weight, 32, 1e-6, silu=True)
    kernels.with_bias(x, weight)
    kernels.padded(x)
    assert fused == dict.fromkeys(names, True)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
@pytest.mark.parametrize("capability", [80, 90])
def test_triton_compiles_them_for_gpus(capability: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from pipeline.models.networks.vqgan import kernels

    tiles = {"ROWS": 32, "COLUMNS": 64}
    whole = {"STRETCH": 1024, "STRETCHES": 2, "GROUP": 5, "COLUMNS": 8, "ADDED": True}
    for kernel, constants in [
        (kernels._moments, {**tiles, "STRETCH": 1024}),
        (kernels._factors, whole),
        (kernels._factors, {**whole, "N": 1, "S": 1, "ADDED": False}),  # a number that is 1 becomes a constant
        (kernels._apply, {**tiles, "SILU": True}),
        (kernels._sum, {**tiles, "SUMS": True, "X_ADDED": True}),
        (kernels._sum, {**tiles, "SUMS": False, "X_ADDED": False}),
        (kernels._pad, tiles),
    ]:
        numbers = {**dict.fromkeys(("N", "D", "S", "H", "W"), "i32"), "eps": "fp32"}
        floats = ("means", "squares", "scales", "shifts")
        types = {
            name: "constexpr" if name in constants else numbers.get(name, "*fp32" if name in floats else "*bf16")
            for name in kernel.arg_names
        }
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        compiled = compile(ASTSource(kernel, types, places), target=GPUTarget("cuda", capability, 32))
        assert "cubin" in compiled.asm
