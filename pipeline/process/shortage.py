"""What the machine has too little of, or what of it fails, in the words of the libraries that found out."""

import contextlib
import errno
import re
from collections.abc import Iterator

# How Pillow, libjpeg and torch say that the machine is out of memory, where they raise no MemoryError.
_OUT_OF_MEMORY = ("out of memory", "insufficient memory", "allocate", "alloc_failed", "allocation_failed")
# How torch says that a GPU, or a library on it, has failed: nothing works on it any more in this process.
_GPU_FAILED = re.compile(r"\b(CUDA|HIP|cuDNN|MIOpen|Triton)( driver)? error\b", re.IGNORECASE)
_REMEDIES = {
    errno.ENOSPC: "make room (df -h, and df -i for the number of files)",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EACCES: "give yourself permission to write there",
    errno.EPERM: "give yourself permission to write there",
    errno.EROFS: "mount it so that it can be written",
}
_PLACE = re.compile(r"^\w+, \S+:\d+, ")


def is_memory_shortage(error: BaseException) -> bool:
    """Whether an error of a library blames the machine's memory."""
    return any(words in reason_of(error).lower() for words in _OUT_OF_MEMORY)


def is_thread_shortage(error: BaseException) -> bool:
    """Whether the system refused a thread, for want of memory or by a limit on their number."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def is_gpu_failure(error: BaseException) -> bool:
    """Whether an error of torch says that the GPU has failed, other than for want of memory."""
    return (
        isinstance(error, RuntimeError)
        and not is_memory_shortage(error)
        and _GPU_FAILED.search(reason_of(error)) is not None
    )


def what_helps(error: OSError) -> str:
    """What the user can do where a file could not be written."""
    return _REMEDIES.get(error.errno or 0, "see to the disk")


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn the RuntimeError by which torch says that the machine is out of memory into a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if is_memory_shortage(error):
            raise MemoryError(reason_of(error)) from error
        raise


def reason_of(error: BaseException) -> str:
    """The message of an error, on one line.

    torch puts the place in C++ before its message and a stack behind it.
    """
    return _PLACE.sub("", str(error).partition("\n")[0])
