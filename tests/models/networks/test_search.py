import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.errors import TokenizerError
from pipeline.models.networks.search import nearest_codes


def vectors(count: int, C: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, C, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for op in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv):
        op.fp32_precision = "none"
    torch.backends.fp32_precision = "none"
    torch.backends.cudnn.conv.fp32_precision = "tf32"


@pytest.mark.parametrize(
    ("N", "K", "C", "chunk_bytes"),
    [
        *[(N, K, 32, chunk) for N, K in [(1, 1), (1000, 7), (257, 512), (0, 5)] for chunk in (None, 4096)],
        *[(N, K, 32, 1) for N, K in [(1, 1), (100, 7), (25, 51), (0, 5)]],  # one number at a time
        (300, 4000, 64, None),  # a codebook of two blocks, the second a smaller one
        (300, 4000, 64, 100_000),
        (3, 3, 100_000, None),  # codes that are longer than a block
    ],
)
def test_agrees_with_brute_force_in_float64(N: int, K: int, C: int, chunk_bytes: int | None) -> None:
    z_NC, codebook_KC = vectors(N, C), vectors(K, C, seed=1)
    distances_NK = (z_NC.double()[:, None] - codebook_KC.double()).square().sum(-1)
    indices_N = nearest_codes(z_NC, codebook_KC, chunk_bytes=chunk_bytes)
    assert (indices_N.dtype, tuple(indices_N.shape)) == (torch.int64, (N,))
    excess_N = distances_NK.gather(1, indices_N[:, None])[:, 0] - distances_NK.min(dim=1).values
    assert (excess_N <= 1e-4).all()
    runner_up_N = distances_NK.topk(min(2, K), dim=1, largest=False).values[:, -1]
    clear_N = runner_up_N - distances_NK.min(dim=1).values > 1e-4
    assert torch.equal(indices_N[clear_N], distances_NK.argmin(dim=1)[clear_N])


@pytest.mark.parametrize("chunk_bytes", [None, 1, 512])
def test_the_lowest_index_wins_a_tie(chunk_bytes: int | None) -> None:
    codebook_KC = vectors(8).repeat(40, 1)
    assert nearest_codes(vectors(8), codebook_KC, chunk_bytes=chunk_bytes).tolist() == list(range(8))


def test_the_search_in_blocks_finds_what_the_search_at_once_finds() -> None:
    """As on an accelerator, which has no blocks."""
    z_NC, codebook_KC = vectors(500, 64), vectors(5000, 64, seed=1)
    once_N = (codebook_KC.square().sum(1) - 2 * z_NC @ codebook_KC.T).argmin(1)
    assert torch.equal(nearest_codes(z_NC, codebook_KC), once_N)


@pytest.mark.parametrize("K", [3, 5000])
def test_a_vector_without_distances_gets_the_first_code(K: int) -> None:
    assert nearest_codes(torch.full((2, 64), torch.nan), vectors(K, 64)).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_searched_in_float32(dtype: torch.dtype) -> None:
    z_NC = vectors(500).to(dtype)
    assert torch.equal(nearest_codes(z_NC, vectors(64)), nearest_codes(z_NC.float(), vectors(64)))


def test_the_distance_matrix_never_exists_as_a_whole(largest_tensor: Any) -> None:
    N, K = 4096, 4096
    z_NC, codebook_KC = vectors(N, 8), vectors(K, 8, seed=1)
    with largest_tensor:
        nearest_codes(z_NC, codebook_KC)
    assert 1 << 20 <= largest_tensor.bytes <= 16 << 20 < N * K * 4


def medium() -> None:
    torch.set_float32_matmul_precision("medium")


def high() -> None:
    torch.set_float32_matmul_precision("high")


def legacy() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def per_operation() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def process_wide() -> None:
    torch.backends.fp32_precision = "tf32"


def settings() -> list[str]:
    backends = torch.backends
    ops = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    return [op.fp32_precision for op in ops]


class SettingsOfProducts(TorchDispatchMode):
    """Records the settings under which matrix products run: not every CPU has a reduced product to show."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in func.name():
            self.seen.update(settings())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduce", [medium, high, legacy, per_operation, process_wide])
def test_a_reduced_matmul_precision_flips_no_code(reduce: Callable[[], None]) -> None:
    z_NC, codebook_KC = vectors(4096), vectors(512, seed=1)
    exact_N = nearest_codes(z_NC, codebook_KC)
    reduce()
    before = settings()
    with warnings.catch_warnings(), SettingsOfProducts() as products:
        warnings.simplefilter("error")
        assert torch.equal(nearest_codes(z_NC, codebook_KC), exact_N)
    assert products.seen
    assert products.seen <= {"ieee", "none"}
    assert settings() == before


def test_the_older_settings_can_be_read_again_afterwards() -> None:
    medium()
    nearest_codes(vectors(8), vectors(4))
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cuda.matmul.allow_tf32


def test_an_inherited_setting_stays_inherited() -> None:
    process_wide()
    nearest_codes(vectors(8), vectors(4))
    torch.backends.fp32_precision = "ieee"
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"


def test_autocast_flips_no_code() -> None:
    z_NC, codebook_KC = vectors(4096), vectors(512, seed=1)
    exact_N = nearest_codes(z_NC, codebook_KC)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal((-2 * z_NC @ codebook_KC.T + codebook_KC.square().sum(1)).argmin(1), exact_N)
        assert torch.equal(nearest_codes(z_NC, codebook_KC), exact_N)


def test_a_codebook_on_another_device_is_named() -> None:
    with pytest.raises(TokenizerError, match="vectors are on cpu and the codebook is on meta"):
        nearest_codes(vectors(3), vectors(2).to("meta"))
