"""How memory is had from the system and given back, which is a setting of the whole process."""

import contextlib
import ctypes
import os
import platform

# https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLDS = (64 << 20, 32 << 20)
"""The larger one where glibc takes it; to older versions 32 MiB is the most."""
_NEVER_TRIM = 1 << 30


def keep_freed_memory() -> None:
    """Have freed blocks of up to 64 MiB used again, where glibc would give many of them back to the system.

    Every batch needs the blocks of the one before, and gets them page by page, each cleared by the kernel first:
    a quarter of the time of a training step. Peak memory stays what it is. Does nothing elsewhere than on glibc, and
    where the environment has settings of its own for it: MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ or
    GLIBC_TUNABLES.
    """
    own_settings = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in own_settings):
        return
    with contextlib.suppress(AttributeError, OSError):  # the interpreter may be linked in its own way
        libc = ctypes.CDLL(None)
        any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in _MMAP_THRESHOLDS)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)


def use_huge_pages() -> None:
    """Have torch ask Linux for pages of 2 MiB for the tensors that are as large.

    The kernel clears every page when it is touched for the first time, and each is a fault: with the activations of a
    VQ-GAN at 256 px up to a sixth of the time of its encoder. Call this before the first tensor is made; processes
    started later inherit it. Does nothing where the environment says so itself, and where Linux has no such pages for
    those who ask (`never` in /sys/kernel/mm/transparent_hugepage/enabled).

    https://github.com/pytorch/pytorch/pull/107697
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
