"""How tokens are made is written down, and another way is refused."""

import pytest
from fixtures_store import Job, all_files

from pipeline.errors import IdentityMismatch

pytest_plugins = ["fixtures_store"]


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
