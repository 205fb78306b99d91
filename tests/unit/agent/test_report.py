"""What a launcher says about itself, also when nobody listens any more."""

import io
import os
from collections.abc import Callable

import pytest

from dssync.agent.metrics import Metrics
from dssync.agent.report import Reporter


def without_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def on_full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("descriptor_of", [without_reader, on_full_disk])
def test_lines_are_kept_when_the_log_cannot_be_written(descriptor_of: Callable[[], int]) -> None:
    with io.TextIOWrapper(io.FileIO(descriptor_of(), "w"), write_through=True) as log:
        reporter = Reporter(Metrics(), log)

        reporter.log("joined", slot=1)
        reporter.log("left", slot=1)

    lines = reporter.lines_from(0)[1]
    assert [line.split(" monotonic")[0] for line in lines] == [
        "dssync joined slot=1",
        "dssync left slot=1",
    ]
