"""Telling what the machine lacks from what is wrong with the input."""

import threading

import pytest

from pipeline.process.shortage import is_gpu_failure, is_memory_shortage, is_thread_shortage, memory_errors

SAID = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (RuntimeError(f"alloc_cpu, /src/c10/core/impl/alloc_cpu.cpp:127, {SAID}\nframe #0: abort"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError("Insufficient memory (case 4)"), True),
        (RuntimeError("Empty input file\nframe #0: allocate"), False),
        (ValueError("not a JPEG"), False),
    ],
)
def test_libraries_say_that_memory_is_short(error: Exception, short: bool) -> None:
    assert is_memory_shortage(error) is short


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("Triton Error [CUDA]: device-side assert triggered"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu"), False),
        (ValueError("CUDA error: of somebody else"), False),
    ],
)
def test_torch_says_that_the_gpu_has_failed(error: Exception, failed: bool) -> None:
    assert is_gpu_failure(error) is failed


def test_a_runtime_error_about_memory_becomes_a_memory_error_in_one_line() -> None:
    with pytest.raises(MemoryError) as caught, memory_errors():
        raise RuntimeError(f"alloc_cpu, /src/alloc_cpu.cpp:127, {SAID}\nframe #0: abort")
    assert str(caught.value) == SAID
    with pytest.raises(RuntimeError, match=r"^the sizes differ$"), memory_errors():
        raise RuntimeError("the sizes differ")


def test_a_thread_that_the_system_refuses_is_a_shortage() -> None:
    size = threading.stack_size(1 << 46)  # more than any address space
    try:
        with pytest.raises(RuntimeError) as caught:
            threading.Thread(target=print).start()
    finally:
        threading.stack_size(size)
    assert is_thread_shortage(caught.value)
    assert not is_thread_shortage(RuntimeError("can't start it"))
