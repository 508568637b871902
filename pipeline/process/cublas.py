"""The workspaces of cuBLAS, which are a setting of the whole process. Needs no torch."""

import os

_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
_REPEATABLE = (":4096:8", ":16:8")
"""Values with which cuBLAS adds up in one order: https://docs.nvidia.com/cuda/cublas/#results-reproducibility"""


def set_repeatable_workspaces() -> None:
    """Have matrix products on CUDA give the same bits each time.

    cuBLAS and torch read the variable at the first product on a device, so call this before; processes started later
    inherit it. A value of the environment that does the same is left alone.
    """
    if os.environ.get(_VARIABLE) not in _REPEATABLE:
        os.environ[_VARIABLE] = _REPEATABLE[0]
