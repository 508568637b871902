"""How long a store of very many parts takes to open."""

import os
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from loaders.rows import VOCAB
from loaders.vqtok import begin_store, commit_rows, finish_store
from pipeline.store.schema.birth import Birth

MOST_SECONDS = 1.0

OPEN = """
import sys, time
from pipeline.store import TokenStore
started = time.perf_counter()
store = TokenStore(sys.argv[1])
assert len(store) == int(sys.argv[2])
print(time.perf_counter() - started)
"""


def seconds_to_open(folder: Path, parts: int, rounds: int) -> float:
    """Commit `parts` parts of two rows, and open the store in new processes: the median, without imports."""
    birth = begin_store(folder, tokens=16)
    processes = min(os.cpu_count() or 1, -(-parts // 1000))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        work = [pool.submit(_commit_some, folder, birth, range(one, parts, processes)) for one in range(processes)]
        for each in work:
            each.result()
    finish_store(folder, birth)
    command = [sys.executable, "-c", OPEN, os.fspath(folder), str(2 * parts)]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(rounds))


def _commit_some(folder: Path, birth: Birth, parts: range) -> None:
    os.fsync = lambda fd: None  # the store is thrown away, and would take three times as long
    tokens = np.random.default_rng(0).integers(0, VOCAB, (2, 16), np.uint16)
    for part in parts:
        commit_rows(folder, birth, part, tokens)
