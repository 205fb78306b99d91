"""The job that most tests of the coordinator begin with."""

import pytest

from unit.control.job import JobOnPaper


@pytest.fixture
def job() -> JobOnPaper:
    """Two members that train together."""
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.b")
    return job
