"""What a process that has imported nothing yet loads, and in which order: one cold process shows it all."""

import platform
import sys

import pytest
from fixtures_store import COLLECTION, Job, cold, cold_python

pytest_plugins = ["fixtures_store"]

NOT_LOADED = """
import sys
from pipeline.cli import main
try:
    main(["tokenize", "--no-progress", "--config", sys.argv[1]])
except SystemExit as end:
    print(end.code)
print([name for name in ("torch._dynamo", "sympy", "tensorboard", "boto3") if name in sys.modules])
"""

WANTED_LATER = """
import torch
from torchvision.ops import roi_align
print(tuple(roi_align(torch.rand(1, 1, 4, 4), [torch.tensor([[0.0, 0.0, 2.0, 2.0]])], (2, 2)).shape))
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist())
"""

WANTED_MEANWHILE = """
from pipeline.source.images.vision import _compiler_left_out
with _compiler_left_out():
    from torch._dynamo.utils import counters
    import torch._dynamo.config
import torch._dynamo
print(counters is torch._dynamo.utils.counters, torch._dynamo.config.__name__)
"""


def test_tokenizing_loads_no_compiler_and_lets_waiting_threads_sleep(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    done = cold(sys.executable, "-c", NOT_LOADED, job.file, environment={"OMP_DISPLAY_ENV": "true"})
    assert done.out.splitlines()[-2:] == ["0", "[]"], done.out + done.err
    assert len(job.commits) == len(COLLECTION)
    if platform.system() == "Linux":  # other builds of torch bring another OpenMP
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.err


@pytest.mark.slow
def test_whoever_wants_the_compiler_has_it(job: Job) -> None:
    done = cold_python(NOT_LOADED + WANTED_LATER, job.file)
    assert done.out.splitlines()[-4:] == ["0", "[]", "(1, 1, 2, 2)", "[2.0, 2.0]"], done.out + done.err


@pytest.mark.slow
def test_an_import_that_wants_more_of_the_compiler_gets_it() -> None:
    done = cold_python(WANTED_MEANWHILE)
    assert done.out == "True torch._dynamo.config\n", done.err
