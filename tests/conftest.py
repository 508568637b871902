"""For every test: few threads and no deadlines, for the cores are shared with other processes."""

import functools
import gc
import inspect
import os
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from support import QUICK, examples
from unsynced import wait_for_no_disk

# Before torch is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where Python may not keep what it has compiled, each of the processes compiles all of PyTorch anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Started by `make test`, the tests are not to tell a make that they run that it is the inner one of two.
for _name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
    os.environ.pop(_name, None)

# click 8.1 keeps the two outputs of a command apart only where it is told to.
if "mix_stderr" in inspect.signature(CliRunner).parameters:
    CliRunner.__init__ = functools.partialmethod(CliRunner.__init__, mix_stderr=False)
    Result.output = property(lambda done: done.stdout + done.stderr)

settings.register_profile("shared cores", deadline=None)
settings.load_profile("shared cores")
settings.register_profile("quick", max_examples=examples(settings.default.max_examples, quick=True))


def pytest_configure(config: pytest.Config) -> None:
    """Of the quick tests, thousands of fsyncs would take a tenth of the time; of properties they try fewer examples."""
    if config.option.markexpr == "not slow":
        wait_for_no_disk()
        os.environ[QUICK] = "1"
        settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported meanwhile stays: to look through it for garbage again and again takes a sixth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
