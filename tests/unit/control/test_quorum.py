"""While launchers are missing without proof of their end, only the arbiter lets rounds go on."""

from collections.abc import Callable

import pytest

from dssync.control import messages as m
from dssync.control.events import ExitsConfirmed, Looked, Paused
from unit.control.job import JobOnPaper

A, B, C = "0.0.a", "1.0.b", "2.0.c"
STRICT = m.SyncSettings("allreduce", 4, 1, "strict", 0)


def job_without(lose: Callable[[JobOnPaper], None], any_side: bool = False) -> JobOnPaper:
    """Return a job that looked at the arbiter, then lost a pod, and has not looked for long."""
    job = JobOnPaper(desired=3, any_side=any_side)
    job.begin(A, B, C)
    job.takes(Looked())
    lose(job)
    job.wait(6.0, 0, 1)
    return job


def falls_silent(job: JobOnPaper) -> None:
    """Nothing comes from a pod any more, and its connection does not end."""


def hangs_up(job: JobOnPaper) -> None:
    job.disconnect(2)


def goes_on(job: JobOnPaper) -> bool:
    """Tell whether members that end a round are given another one."""
    before = job.assignment(A).round
    for key in (A, B):
        for number in range(before + 1):
            job.says(key, m.Abandoned(number, 0))
            job.apply(key, round=number)
    return job.assignment(A).round > before


@pytest.mark.parametrize("lose", [falls_silent, hangs_up])
def test_rounds_wait_for_a_look_at_the_arbiter(lose: Callable[[JobOnPaper], None]) -> None:
    job = job_without(lose)
    held = not goes_on(job)

    job.takes(Looked())

    assert held
    assert goes_on(job)
    kinds = [note.kind for note in job.notes]
    assert [each for each in kinds if each in ("holding", "going_on")] == ["holding", "going_on"]


def test_a_look_is_worth_five_seconds() -> None:
    job = job_without(falls_silent)
    job.takes(Looked())
    job.wait(4.9, 0, 1)
    assert goes_on(job)

    job.wait(0.3, 0, 1)

    assert not goes_on(job)


def test_who_is_heard_again_is_not_missing() -> None:
    job = job_without(falls_silent)

    job.hear(2, m.Heartbeat(()))

    assert goes_on(job)


def test_who_has_ended_as_soon_as_it_was_lost_is_not_missing() -> None:
    job = JobOnPaper(desired=3)
    job.begin(A, B, C)
    hangs_up(job)
    job.wait(0.5, 0, 1)

    job.takes(ExitsConfirmed(("pod2",)))
    job.wait(6.0, 0, 1)

    assert goes_on(job)


def test_who_stood_still_waits_for_a_look_though_what_was_on_its_way_is_heard() -> None:
    job = JobOnPaper(desired=3)
    job.begin(A, B, C)
    job.takes(Looked())
    job.takes(Paused())
    for slot in (0, 1, 2):
        job.hear(slot, m.Heartbeat(()))
    # This one may have begun before.
    job.takes(Looked())
    held = not goes_on(job)

    job.takes(Looked())

    assert held
    assert goes_on(job)


def test_who_stood_still_and_has_no_arbiter_goes_on_once_all_are_heard() -> None:
    job = JobOnPaper(desired=3)
    job.begin(A, B, C)
    job.takes(Paused())
    held = not goes_on(job)

    for slot in (0, 1, 2):
        job.hear(slot, m.Heartbeat(()))

    assert held
    assert goes_on(job)


def test_any_side_of_a_partition_goes_on_where_people_want_it() -> None:
    assert goes_on(job_without(falls_silent, any_side=True))


def test_strict_rounds_are_not_committed_meanwhile() -> None:
    job = JobOnPaper(desired=3, sync=STRICT)
    job.begin(A, B, C)
    job.takes(Looked())
    job.wait(2.5, 0, 1)
    for key in (A, B):
        job.says(key, m.Abandoned(0, 0))
    job.wait(3.5, 0, 1)
    for key in (A, B):
        job.says(key, m.Confirm(0, 1, ()))
    held = not job.of(A, m.Commit)

    job.takes(Looked())

    assert held
    assert job.of(A, m.Commit)


def test_a_strict_round_that_only_waits_for_a_look_has_no_deadline() -> None:
    job = JobOnPaper(desired=3, sync=STRICT)
    job.begin(A, B, C)
    job.takes(Looked())
    job.wait(2.5, 0, 1)
    for key in (A, B):
        job.says(key, m.Abandoned(0, 0))
    job.wait(3.5, 0, 1)
    for key in (A, B):
        job.says(key, m.Arrive(0, 1, False), m.Confirm(0, 1, ()))

    job.wait(30.0, 0, 1)

    assert m.Abandon(0, 1) not in job.of(A, m.Abandon)
    job.takes(Looked())
    assert m.Commit(0, 1, ()) in job.of(A, m.Commit)


def test_no_checkpoint_is_published_meanwhile() -> None:
    job = job_without(falls_silent)
    job.says(A, m.AskPublish(0))
    held = not job.of(A, m.MayPublish)

    job.takes(Looked())
    job.takes(Looked())

    assert held
    assert job.of(A, m.MayPublish) == [m.MayPublish(0, 1)]
