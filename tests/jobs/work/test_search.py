"""The search that a job uses is part of how its tokens are made."""

from unittest.mock import Mock

import pytest
from fixtures_store import Job
from shard_work import work_of

from pipeline.errors import TokenizerError
from pipeline.models.tokenizers.network import NetworkTokenizer

pytest_plugins = ["fixtures_store"]


@pytest.mark.parametrize("search", ["triton 3.6.0", None, TokenizerError("no C compiler")])
def test_the_search_that_is_used_is_part_of_the_execution(
    search: object, job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is torch's, records are as they ever were."""
    asked = Mock(side_effect=[search])
    monkeypatch.setattr(NetworkTokenizer, "use_fast_search", asked)
    with work_of(job.config("tokenize.batch_size=3")) as work:
        execution = work.machine.execution
    asked.assert_called_once_with(3, (16, 24))
    assert execution.get("search", "torch") == (search if isinstance(search, str) else "torch")
    said = "the kernel for this GPU is not used: no C compiler" in capsys.readouterr().err
    assert said == isinstance(search, TokenizerError)
