"""What killed processes left beside a finished store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.claims import START, Claim, Claims, claimed
from pipeline.files import LocalFiles
from pipeline.jobs.work.leftovers import MANIFEST, clear_leftovers
from pipeline.store.schema.failures import Failure, noted_failures, record_failure

ELSEWHERE = {"host": "elsewhere", "boot_id": "another"}
LONG_AGO = (datetime.now(UTC) - timedelta(days=1)).isoformat()


def leave_claim(files: LocalFiles, name: str, **changes: str) -> None:
    """A claim of a process of another host."""
    with Claims(files, 600) as claims:
        claims.acquire(name)
        claim = Claim.model_validate_json(files.read(f"claims/{name}.json"))
    files.put(f"claims/{name}.json", claim.model_copy(update={**ELSEWHERE, **changes}).to_json())


def test_claims_and_failures_of_committed_parts_go_and_others_stay(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for name in ("done", "pending", MANIFEST, f"{START}2-young"):
        leave_claim(files, name)
    leave_claim(files, f"{START}2-old", since=LONG_AGO)
    files.put("claims/torn.json", b"{")
    for part in ("done", "pending"):
        record_failure(files, Failure(part=part, source="s", reason="r", host="h", time=""))
    clear_leftovers(files, {"done", "torn"})
    assert claimed(files) == ["pending", f"{START}2-young"]
    assert noted_failures(files) == {"pending"}


def test_a_folder_that_cannot_be_swept_fails_nobody(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("in the way")
    clear_leftovers(LocalFiles(tmp_path), {"done"})
