"""What becomes of a source shard that failed, and of a process that hangs."""

import re
from pathlib import Path

from fixtures_store import make_job

pytest_plugins = ["fixtures_store"]


def test_a_process_with_a_hung_read_ends_and_says_where(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """The end of one command's output never comes; the other's can be committed."""
    good, hung = (f"pipe:cat {collection}/train-0001.tar{end}" for end in ("", "; sleep 600"))
    changes = {"source.shards": [good, hung], "source.base": None, "source.allow_pipe": True}
    job = make_job(tmp_path, tmp_path, tokenizer_folder, {**changes, "tokenize.stall_timeout": 4})
    done = job.start().wait(timeout_s=60)
    assert done.status == 1
    assert re.search(r"vqtok: read .*: has not ended for \d+ s \(tokenize.stall_timeout\); this process ends", done.err)
    assert "stdout.read" in done.err  # where in Python
    assert job.listing("claims") == []
    (failure,) = job.listing("failures")
    assert job.start("--set", f"source.shards=['{good}']").wait().status == 0
    (commit,) = job.commits.values()
    assert failure != f"{commit['part']}.json"
