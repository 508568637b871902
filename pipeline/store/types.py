"""Types that all rooms of the store share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

Rows = slice | Sequence[int] | Array
"""Rows of a store as callers ask for them: a slice, or row numbers."""
