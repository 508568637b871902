"""cuBLAS gets workspaces with which its products are the same each time, unless the environment has such."""

import os

import pytest

from pipeline.process.cublas import set_repeatable_workspaces


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, ":4096:8"), (":4096:8", ":4096:8"), (":16:8", ":16:8"), (":4096:2:16:8", ":4096:8"), ("", ":4096:8")],
)
def test_what_does_the_same_is_left_alone(before: str | None, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    set_repeatable_workspaces()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == after
