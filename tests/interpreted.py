"""Triton's kernels in its interpreter, in a process of its own."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from support import in_a_child


def interpreted(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns where kernels are interpreted. Skips the test where there is no Triton."""
    if find_spec("triton") is None:
        pytest.skip("no Triton here")
    returned, problem = in_a_child(_call, function, arguments)
    if problem:
        pytest.skip(f"the interpreter of this Triton is older than this numpy: {problem}")
    return returned


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str]:
    # Whether kernels are interpreted is decided when they are defined, and Triton has some of its own. torch may have
    # imported it already; what is compiled of it stays.
    os.environ["TRITON_INTERPRET"] = "1"
    for name in [name for name in sys.modules if name.split(".")[0] == "triton" and not name.startswith("triton._C")]:
        del sys.modules[name]
    try:
        return function(*arguments), ""
    except Exception as error:  # a TypeError, or what some versions of the interpreter make of it
        if "only 0-dimensional arrays can be converted" not in str(error):
            raise
        return None, str(error)
