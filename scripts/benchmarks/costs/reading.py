"""What reading a large store takes. Each process measures one thing, for its peak of memory tells nothing of the next.

python scripts/benchmarks/costs/reading.py WHAT STORE [KEY]        prints its figures as JSON
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

RANKS = 1500
"""Of the job that resumes."""

_BATCHES = 20_000
"""Of 256 rows: how far the rate is measured, and where the epoch is resumed."""

Figures = dict[str, float]


def measure(what: str, store: Path, *key: str) -> Figures:
    """The figures of `load` or `find` in a process of its own; `mib` is what its peak of memory grew by."""
    return dict(json.loads(subprocess.check_output([sys.executable, __file__, what, str(store), *key])))


def load(store_path: str) -> Figures:
    """Seconds to open the store, to the first batch of a shuffled epoch and of a resumed one; and rows a second."""
    from pipeline.loader import TokenLoader
    from pipeline.store import TokenStore

    figures, clock = {}, _Clock()
    store = TokenStore(store_path)
    figures["open"] = clock.lap()
    loader = TokenLoader(store)
    batches = iter(loader)
    next(batches)
    figures["first"] = clock.lap()
    rows = sum(len(batch) for batch in islice(batches, _BATCHES))
    figures["rate"] = rows / clock.lap()
    state = loader.state_after(min(_BATCHES, len(loader) - 1))
    clock.lap()
    resumed = TokenLoader(store, rank=RANKS // 2, world_size=RANKS)
    resumed.load_state_dict(state)
    next(iter(resumed), None)
    figures["resume"] = clock.lap()
    return figures


def find(store_path: str, key: str) -> Figures:
    """Seconds to find all rows with a key, those of CPU among them, and the number of rows."""
    from pipeline.store import TokenStore

    store, before, busy, clock = TokenStore(store_path), _peak_mib(), time.process_time(), _Clock()
    found = store.keys.find(key)
    seconds, busy = clock.lap(), time.process_time() - busy
    return {"seconds": seconds, "cpu": busy, "rows": len(found), "mib": _peak_mib() - before}


class _Clock:
    """Seconds since the last question."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        return seconds


def _peak_mib() -> float:
    """Largest resident memory of this process; that of getrusage would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


_MEASURES: dict[str, Callable[..., Figures]] = {"load": load, "find": find}

if __name__ == "__main__":
    print(json.dumps(_MEASURES[sys.argv[1]](*sys.argv[2:])))
