"""How tokens are made is written down, and another way is refused."""

from importlib.metadata import version

import pytest
import torch
from fixtures_store import Job, all_files

from pipeline.errors import IdentityMismatch
from pipeline.jobs.work import execution

pytest_plugins = ["fixtures_store"]

CPU, GPU = torch.device("cpu"), torch.device("cuda", 3)


def test_builds_for_another_cuda_are_another_execution(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H100 {device.index}")
    monkeypatch.setattr(torch, "__version__", "2.99.0+cu132")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(execution, "torchvision_version", "0.99.0+cu132")
    monkeypatch.setattr(execution, "nvjpeg_version", lambda: "13.0.1")
    names = {}
    for decoder in ("torchvision", "nvjpeg"):
        found = execution.describe_execution(job.config(f"image.decoder={decoder}"), GPU, 8)
        names[decoder] = found["versions"]
        assert found["device"] == "NVIDIA H100 3"
    pillow = {"pillow": version("pillow")}
    expected = {"torch": "2.99.0+cu132", "torchvision": "0.99.0+cu132", "cudnn": "91900", **pillow}
    assert names == {"torchvision": expected, "nvjpeg": {**expected, "nvjpeg": "13.0.1"}}


def test_stores_that_a_cpu_made_resume_whatever_cuda_torch_is_built_for(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.99.0+cu132")
    found = execution.describe_execution(job.config(), CPU, 8)
    assert found["versions"] == {name: version(name) for name in ("torch", "torchvision", "pillow")}


def test_another_execution_is_refused_unless_it_is_allowed(job: Job) -> None:
    assert job.run("source.exclude=more/*").complete
    before = all_files(job.store)
    overrides = ["tokenize.batch_size=3", "tokenize.precision=bf16"]
    with pytest.raises(IdentityMismatch) as caught:
        job.run(*overrides, allow_slow=True)
    message = str(caught.value)
    assert "batch_size: 3 here, 8 there" in message
    assert 'precision: "bf16" here, "fp32" there' in message
    assert "--allow-execution-change" in message
    assert all_files(job.store) == before
    allowed = ["--allow-execution-change", "--allow-slow"]
    done = job.start(*allowed, *(word for each in overrides for word in ("--set", each))).wait()
    assert done.status == 0
    executions = {record["execution"]["batch_size"] for record in job.commits.values()}
    assert executions == {3, 8}
