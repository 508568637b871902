"""What is used of torchvision, imported without torch's compiler.

`import torchvision` loads `torch._dynamo` and sympy, which takes longer than torch itself does, for operators that a
compiler may want and nothing here calls.
"""

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

_COMPILER = "torch._dynamo"
_COMPILER_UTILS = "torch._dynamo.utils"


class _StandIn(types.ModuleType):
    """A module of the compiler with the little that is asked of it; asked for more, the module itself."""

    def __getattr__(self, name: str) -> Any:
        # Code that walks through all loaded modules asks each for names like `__file__`: it must not load the compiler.
        # Only `__path__` of the package itself matters, which an import of one of its modules asks for.
        if name.startswith("__") and (name, self.__name__) != ("__path__", _COMPILER):
            raise AttributeError(name)
        _withdraw_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _compiler_left_out() -> Iterator[None]:
    """Have imports in the body find stand-ins for torch's compiler, where that is not loaded yet."""
    if _COMPILER not in sys.modules:
        compiler, utils = _StandIn(_COMPILER), _StandIn(_COMPILER_UTILS)
        compiler.__dict__.update(utils=utils, disable=_not_disabled)
        utils.__dict__.update(is_compile_supported=_is_compile_supported)
        sys.modules.update({_COMPILER: compiler, _COMPILER_UTILS: utils})
    try:
        yield
    finally:
        _withdraw_stand_ins()


def _withdraw_stand_ins() -> None:
    for name in (_COMPILER, _COMPILER_UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    """The function of that name, loaded when it is called."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _not_disabled(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Callable[..., Any]:
    """A decorator that only means something to functions that are compiled, which those of torchvision are not here."""
    return function if function is not None else _not_disabled


with _compiler_left_out():
    import torch
    from torchvision import __version__ as torchvision_version
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms
    from torchvision.utils import make_grid

__all__ = [
    "ImageReadMode",
    "InterpolationMode",
    "cpu_jpeg",
    "decode_jpeg",
    "make_grid",
    "torchvision_version",
    "transforms",
]

cpu_jpeg: Callable[[torch.Tensor, int, bool], torch.Tensor] = torch.ops.image.decode_jpeg.default
"""What `decode_jpeg` calls for one file on the CPU: bytes, ImageReadMode, whether EXIF turns the picture."""
