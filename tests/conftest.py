"""For every test: few threads, for the cores are shared with other test processes."""

import os

# Before torch is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
