"""How large a network may become that is built by what a stranger's settings say: no larger than its weights are.

A few bytes of JSON can ask for a codebook of terabytes, or for a billion layers. The weights beside them are there:
what is asked for beyond them is refused while the network is built, before memory is taken.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import CONFIG
from pipeline.models.folder.weights import tensor_entries

# Networks make tables that they drop, or that are no weights.
_TIMES = 3
_SPARE = 1 << 24
_SPARE_TENSORS = 1000

_OF_SHAPE = frozenset([torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full])


class Budget(TorchFunctionMode):
    """A context in which about as many tensors are made as there are weights, of about as many elements in all.

    Args:
        shapes: those of the weights.
        path: what tells the shapes of the network, for the error.

    Inside of it TokenizerError is raised where more are asked for.
    """

    def __init__(self, shapes: Iterable[Sequence[int]], path: Path) -> None:
        super().__init__()
        sizes = [math.prod(shape) for shape in shapes]
        self._elements = sum(sizes)
        self._left = _TIMES * self._elements + _SPARE
        self._tensors_left = _TIMES * len(sizes) + _SPARE_TENSORS
        self._path = path

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what is about to be made."""
        kwargs = kwargs or {}
        if func in _OF_SHAPE:
            self._take(_elements(args, kwargs))
        return func(*args, **kwargs)

    def _take(self, elements: int) -> None:
        self._left -= elements
        self._tensors_left -= 1
        if min(self._left, self._tensors_left) < 0:
            raise TokenizerError(
                f"{self._path}: asks for a network larger than its weights, which have {self._elements:,} numbers; "
                "copy both files from one folder"
            )


def _elements(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    size = kwargs.get("size", args)
    if size and not isinstance(size[0], int):
        size = size[0]
    return math.prod(int(side) for side in size)


def within(weights: bytes, folder: Path) -> Budget:
    """That of the safetensors file of a tokenizer folder, which config.json may not exceed."""
    return Budget([entry.shape for entry in tensor_entries(weights)], folder / CONFIG)
