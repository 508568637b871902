"""How the threads of OpenMP wait for each other, which is a setting of the whole process."""

import os

_OWN_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def let_waiting_threads_sleep() -> None:
    """Have a thread that waits for the others give its core away, where it would spin.

    Every operation of a model ends with such a wait. Where other work wants the same cores, spinning takes them from
    the very threads that are waited for, and training becomes several times slower.

    The library reads the variable when it is loaded, so call this before torch is imported; processes started later
    inherit it. Does nothing where the environment has a setting of its own: OMP_WAIT_POLICY, GOMP_SPINCOUNT (of GNU's
    library), KMP_BLOCKTIME or KMP_LIBRARY (of LLVM's and Intel's).
    """
    if not any(name in os.environ for name in _OWN_SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "passive"
