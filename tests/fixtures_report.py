"""The report on the finished job; a pytest plugin."""

import pytest
from fixtures_store import Job

from pipeline.jobs.reporting import job as report


@pytest.fixture(scope="session")
def made_report(finished: Job) -> report.Report:
    """The report on the finished job."""
    return report.run(finished.config())
