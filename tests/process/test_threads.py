"""torch's thread count, a setting of the whole process."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.process.threads import cpu_threads, one_thread


def test_the_callers_number_comes_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_a_pool_of_single_threads_leaves_the_caller_alone() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before), ThreadPoolExecutor(1, initializer=one_thread) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before
