"""What a launcher says about itself, also when nobody listens any more."""

import io
import os

from dssync.agent.metrics import Metrics
from dssync.agent.report import Reporter


def test_lines_are_kept_when_the_reader_of_the_log_is_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True) as pipe:
        reporter = Reporter(Metrics(), pipe)

        reporter.log("joined", slot=1)
        reporter.log("left", slot=1)

    lines = reporter.lines_from(0)[1]
    assert [line.split(" monotonic")[0] for line in lines] == [
        "dssync joined slot=1",
        "dssync left slot=1",
    ]
