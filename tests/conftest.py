"""For every test: few threads and no deadlines, for the cores are shared with other processes."""

import os

from hypothesis import settings

# Before torch is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started by `make test`, the tests are not to tell a make that they run that it is the inner one of two.
for _name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
    os.environ.pop(_name, None)

settings.register_profile("shared cores", deadline=None)
settings.load_profile("shared cores")
