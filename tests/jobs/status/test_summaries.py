"""What a glance at a commit record tells."""

from socket import gethostname

import pytest

from pipeline.jobs.status import summaries as committed
from pipeline.jobs.status.summaries import Committed

COMMIT = {
    "part": "p",
    "attempt": "a",
    "sources": [{"path": "p.tar", "bytes": 1}],
    "seen": 1,
    "written": 1,
    "rejected": 0,
    "seconds": {"wall": 60.0},
    "finished": "2026-11-26T12:00:00+00:00",
    "host": gethostname(),
    "execution": {"precision": "fp32", "device": "cpu AVX512"},
}


@pytest.mark.parametrize(
    ("change", "flags", "helps"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"host": "elsewhere"}, True, False),  # whose processor nobody can ask
        ({"execution": {"precision": "bf16", "device": "cpu AVX512"}}, True, False),
        ({"execution": {"precision": "fp32", "device": "NVIDIA H100"}}, True, False),
        ({"execution": {}}, True, False),
    ],
)
def test_bfloat16_is_hinted_at_where_this_processor_has_it(
    change: dict[str, object], flags: bool, helps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed, "_cpu_has_bf16", lambda: flags)
    assert Committed.model_validate(COMMIT | change).load(gpu_decodes=False).bf16_helps is helps
