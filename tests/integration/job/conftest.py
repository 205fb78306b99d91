"""A job of real processes that ends with its test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.job.harness import Job


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    made.stop()
