"""What encoding costs at least: its matrix products at the rate at which this machine multiplies such matrices.

A convolution is the product of its patches and its weights. Reading the pixels, activations and the smallest distance
are not counted, and the matrices measured stay in the cache: nothing that computes the same products is faster.
"""

import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.process.threads import one_thread

_ROWS = 4096
"""More rows of patches than this leave the cache."""
_SECONDS = 0.1


@dataclass(frozen=True)
class Product:
    """One matrix product of encoding one image: [rows, inner] x [inner, columns]."""

    layer: str
    rows: int
    inner: int
    columns: int
    times: int = 1
    """How many of them, as with attention heads or groups of channels."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights: what decides the rate, as long as there are many rows."""
        return self.inner, self.columns

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns * self.times


def encoder_products(encoder: nn.Module, image_size: tuple[int, int]) -> list[Product]:
    """The products of an encoder's convolutions and linear layers, found by running it on one black image."""
    products: list[Product] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name = f"{type(layer).__name__} {len(products) + 1}"
        if isinstance(layer, nn.Conv2d):
            inner = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
            columns = layer.out_channels // layer.groups
            products.append(Product(name, math.prod(output.shape[2:]), inner, columns, layer.groups))
        elif isinstance(layer, nn.Linear):
            rows = output.numel() // layer.out_features
            products.append(Product(name, rows, layer.in_features, layer.out_features))

    hooks = [layer.register_forward_hook(note) for layer in encoder.modules()]
    weight = next(encoder.parameters())
    with torch.no_grad():
        encoder(torch.zeros(1, 3, *image_size, dtype=weight.dtype, device=weight.device))
    for hook in hooks:
        hook.remove()
    return products


def search_product(tokens: int, codebook_shape: tuple[int, int]) -> Product:
    """The product of the search: every vector of one image by every code."""
    codes, length = codebook_shape
    return Product("search", tokens, length, codes)


class ProductRates:
    """How fast products go on the CPU, all cores together; `measure` may be called again, and the best counts.

    Every core multiplies for itself: threads that share a product wait for each other where the machine has other
    work too, and the limit would be lower than what can be reached. Images of all sizes have products of one shape.
    """

    def __init__(self, dtypes: Sequence[torch.dtype], cores: int) -> None:
        self._dtypes = dtypes
        self._cores = cores
        self._best: dict[tuple[tuple[int, int], torch.dtype], float] = {}

    def measure(self, products: Iterable[Product]) -> float:
        """Measure the shapes of these products; gives the best rate of any shape so far, FLOP/s."""
        with ThreadPoolExecutor(self._cores, "product", one_thread) as pool:
            for shape, dtype in itertools.product({product.shape for product in products}, self._dtypes):
                inner, columns = shape
                left, right = torch.randn(_ROWS, inner).to(dtype), torch.randn(inner, columns).to(dtype)
                runs = sum(pool.map(_runs_per_second, [left] * self._cores, [right] * self._cores))
                rate = 2 * _ROWS * inner * columns * runs
                self._best[shape, dtype] = max(self._best.get((shape, dtype), 0.0), rate)
        return max(self._best.values())

    def flops_per_second(self, dtype: torch.dtype) -> float:
        """The best rate of any shape."""
        return max(rate for (_, of), rate in self._best.items() if of == dtype)

    def images_per_second(self, dtypes: Mapping[Product, torch.dtype]) -> float:
        """The limit of encoding with each product in its dtype."""
        return 1 / sum(product.flops / self._best[product.shape, dtype] for product, dtype in dtypes.items())


def _runs_per_second(left: Tensor, right: Tensor) -> float:
    out = left @ right
    runs, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        torch.mm(left, right, out=out)
        runs += 1
    return runs / (time.perf_counter() - started)
