"""`vqtok tokenize` before there is anything to do: neither torch nor Zarr is loaded."""

import shutil
from pathlib import Path

from fixtures_store import COLLECTION, Job, cold_python

pytest_plugins = ["fixtures_store"]


NO_OP = """
import sys
from pipeline.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"torch", "zarr", "accelerate"} & set(sys.modules)))
"""


def test_a_run_with_nothing_to_do_takes_no_time_to_say_so(finished: Job) -> None:
    for options in ([], ["--processes", "2"]):
        done = cold_python(NO_OP, "tokenize", "--config", finished.file, *options)
        message = f"{finished.store}: all 6 source shards are committed; nothing to do"
        assert (done.status, done.out, done.err) == (0, f"{message}\n[]\n", "")


def test_a_dry_run_tells_what_is_pending_and_writes_nothing(job: Job) -> None:
    done = cold_python(NO_OP, "tokenize", "--dry-run", "--config", job.file)
    size = sum((job.source / path).stat().st_size for path in COLLECTION)
    assert done.out == f"{job.store}: 6 of 6 source shards are pending, {size:,} bytes\n[]\n"
    assert done.status == 0
    done = cold_python(NO_OP, "tokenize", "--dry-run", "--config", job.file, "--set", "tokenize.layout=multiscale")
    assert (done.status, "no block layout 'multiscale'; known: raster" in done.err) == (2, True)
    assert not job.store.exists()


def test_a_dry_run_says_that_the_job_would_be_refused(finished: Job, tmp_path: Path) -> None:
    shutil.copy(finished.source / min(COLLECTION), tmp_path / "other.tar")
    other_source = (f"source.shards={tmp_path}/*.tar", "source.base=null")
    for settings, reason in (
        (("image.size=64",), "the configuration is not that of the store (there): image.size: [64, 64] here, "),
        (other_source, "none of them of the source shards of this configuration"),
    ):
        overrides = [word for setting in settings for word in ("--set", setting)]
        done = cold_python(NO_OP, "tokenize", "--dry-run", "--config", finished.file, *overrides)
        assert done.status == 1
        assert reason in done.err
