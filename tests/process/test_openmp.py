"""OpenMP's threads sleep while they wait, unless the environment says otherwise.

That the command says so before torch loads the library is tested with the modules that it loads, in test_cold.py.
"""

import os

import pytest

from pipeline.process.openmp import let_waiting_threads_sleep


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", ""])
def test_what_the_environment_says_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name or "UNRELATED", "own")
    let_waiting_threads_sleep()
    assert os.environ.get("OMP_WAIT_POLICY") == {"": "passive", "OMP_WAIT_POLICY": "own"}.get(name)
