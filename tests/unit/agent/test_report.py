"""What a launcher says about itself, also when nobody listens any more."""

import io
import os
from collections.abc import Callable

import pytest

from dssync import contract
from dssync.agent.metrics import Metrics
from dssync.agent.report import Reporter
from dssync.agent.verdict import Verdict


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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (contract.VERDICT_USER_ERROR, contract.EXIT_FAILED),
        (contract.VERDICT_FENCED, contract.EXIT_FENCED),
    ],
)
def test_why_a_launcher_gave_up_is_the_last_word(name: str, code: int) -> None:
    said = io.StringIO()

    Reporter(Metrics(), said).summary(Verdict(name, "no coordinator answered for 60 s", 0))

    ended, sentence = said.getvalue().splitlines()
    assert ended.startswith(f"dssync ended verdict={name} exit_code={code} ")
    assert sentence == "dssync: no coordinator answered for 60 s"


@pytest.mark.parametrize("name", [contract.VERDICT_DONE, contract.VERDICT_DRAINED])
def test_an_end_that_was_wanted_costs_no_sentence(name: str) -> None:
    said = io.StringIO()

    Reporter(Metrics(), said).summary(Verdict(name, "all workers ended with code 0", 0))

    (ended,) = said.getvalue().splitlines()
    assert ended.startswith(f"dssync ended verdict={name} exit_code=0 ")
