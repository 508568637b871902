"""Processes that are starting up, as others see them."""

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from fixtures_store import Job, cold_python, wait_for

from pipeline.claims import START, Claims, read_claim
from pipeline.files import LocalFiles
from pipeline.jobs.status import job as status
from pipeline.jobs.work.starting import processes_of, read_starts, say_what_is_loaded

pytest_plugins = ["fixtures_store"]

NAME = f"{START}3-0123456789ab"


@pytest.fixture
def unfinished(damageable: Job) -> Job:
    """A job without its manifest."""
    (damageable.store / "manifest.json").unlink()
    return damageable


def test_a_start_that_is_stopped_leaves_nothing(unfinished: Job) -> None:
    """Also while it loads PyTorch, which takes seconds and handles no signals."""
    command = [sys.executable, "-m", "pipeline", "tokenize", "--no-progress", "--config", str(unfinished.file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: any(name.startswith(START) for name in unfinished.listing("claims")))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, unfinished.listing("claims")) == (143, []), err


@pytest.mark.parametrize("minutes", [-30, 30], ids=["old", "of a clock that is ahead"])
def test_a_start_of_another_host_does_not_last_for_ever(unfinished: Job, minutes: int) -> None:
    files = LocalFiles(unfinished.store)
    with Claims(files, 60) as claims:
        claims.acquire(NAME)
        claim = read_claim(files, NAME)
    assert claim is not None
    then = datetime.now(UTC) + timedelta(minutes=minutes)
    for since, counted in ((claim.since, 3), (then.isoformat(timespec="seconds"), 0), ("", 0), ("yesterday", 0)):
        other = claim.model_copy(update={"host": "elsewhere", "since": since})
        files.put(f"claims/{NAME}.json", other.to_json())
        assert sum(map(processes_of, read_starts(files))) == counted, since
        assert status.run(unfinished.config()).starting == counted
    code = (
        "import sys; from pipeline.files import LocalFiles; from pipeline.jobs.work.starting import announced\n"
        "with announced(LocalFiles(sys.argv[1]), 1, 60): pass"
    )
    assert cold_python(code, unfinished.store).status == 0
    assert unfinished.listing("claims") == []


def test_a_job_that_is_refused_leaves_no_store(job: Job) -> None:
    done = job.start("--set", "image.size=30").wait()
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("vqtok: image.size: ")
    assert not job.store.exists()


def test_what_loads_is_said_by_one_of_many(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "torch" in sys.modules
    say_what_is_loaded()  # it is here already
    assert capsys.readouterr().err == ""
    say_what_is_loaded(2)  # as after training: they have yet to load it
    assert capsys.readouterr().err == "starting 2 processes: loading PyTorch\n"
    monkeypatch.setenv("RANK", "1")
    say_what_is_loaded(2)
    assert capsys.readouterr().err == ""
