"""What a coordinator gives to checkpoints, and when it gives leave to publish them."""

import pytest

from dssync.control import messages as m
from dssync.control.events import Looked
from unit.control.job import JobOnPaper

A, B = "0.0.a", "1.0.b"


@pytest.fixture
def job() -> JobOnPaper:
    made = JobOnPaper(desired=2)
    made.begin(A, B)
    return made


def leave(job: JobOnPaper) -> list[object]:
    return job.of(A, m.MayPublish)


def test_leave_is_given_on_a_look_at_the_arbiter_that_began_after_it_was_asked_for(
    job: JobOnPaper,
) -> None:
    job.takes(Looked())
    job.says(A, m.AskPublish(3))

    job.takes(Looked())  # it may have been on its way
    early = leave(job)
    job.takes(Looked())

    assert early == []
    assert leave(job) == [m.MayPublish(3, 1)]


def test_where_the_arbiter_is_out_of_reach_leave_is_given_after_a_while(job: JobOnPaper) -> None:
    job.takes(Looked())
    job.says(A, m.AskPublish(3))
    job.wait(4.5, 0, 1)
    early = leave(job)

    job.wait(1.0, 0, 1)

    assert early == []
    assert leave(job) == [m.MayPublish(3, 1)]


def test_a_job_without_an_arbiter_publishes_at_once(job: JobOnPaper) -> None:
    job.says(A, m.AskPublish(3))

    assert leave(job) == [m.MayPublish(3, 1)]


def test_a_checkpoint_is_told_the_last_views(job: JobOnPaper) -> None:
    job.hear(1, m.Drain())

    job.says(A, m.AskLedger(0))

    copy = job.last(A, m.LedgerCopy)
    assert isinstance(copy, m.LedgerCopy)
    assert [view.members for view in copy.views] == [(A, B), (A,)]


def test_the_last_pod_of_a_view_to_drain_flushes_first(job: JobOnPaper) -> None:
    job.hear(1, m.Drain())
    still = job.assignment(A).kind

    job.hear(0, m.Drain())

    suspend = job.assignment(A)
    assert (still, suspend.kind, suspend.strict) == ("train", "suspend", True)
    assert job.last(A, m.LastRound) == m.LastRound(suspend.round)
