"""Freed memory is used again: fewer pages that the kernel must clear, as this process counts them."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import in_a_child

from pipeline.process.malloc import use_huge_pages

# Four blocks in use at once, given back and taken again; of each round only the pages are counted.
ROUNDS = """
import resource, sys
import numpy as np
from pipeline.process.malloc import keep_freed_memory

def round():
    blocks = [np.ones(40 << 20, np.uint8) for _ in range(4)]

if sys.argv[1:]:
    keep_freed_memory()
for _ in range(3):
    round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, *arguments],
        env={name: value for name, value in os.environ.items() if "MALLOC" not in name} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other settings")
def test_freed_blocks_are_used_again_unless_the_environment_says_otherwise() -> None:
    given_back = page_faults()
    assert page_faults("keep") < given_back / 10
    assert page_faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > given_back / 2


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def page_faults_of_a_tensor(setting: str | None) -> int:
    import torch

    os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
    if setting is not None:
        os.environ["THP_MEM_ALLOC_ENABLE"] = setting
    use_huge_pages()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages to be had")
def test_large_tensors_lie_in_huge_pages_unless_the_environment_says_otherwise() -> None:
    assert in_a_child(page_faults_of_a_tensor, None) < in_a_child(page_faults_of_a_tensor, "0") / 4
