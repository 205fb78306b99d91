"""What a coordinator tells people about its job."""

from dssync.control.messages import Drain
from dssync.control.survey import survey
from unit.control.job import JobOnPaper


def test_the_status_lists_launchers_and_members_with_what_they_are_in() -> None:
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.c")
    job.disconnect(1)

    status = survey(job.coordinator, "digits", slot=0, now=job.now + 0.1)

    assert (status.job, status.term, status.coordinator, status.desired) == ("digits", 1, 0, 2)
    assert [(pod.slot, pod.state, pod.node) for pod in status.pods] == [
        (0, "connected", "node0"),
        (1, "lost", "node1"),
    ]
    assert [pod.heard_seconds for pod in status.pods] == [0.1, 0.1]
    assert [(m.member, m.phase, m.weighted) for m in status.members] == [
        ("0.0.a", "active", True),
        ("1.0.c", "active", True),
    ]
    assert status.view == 1
    assert status.round >= 1
    assert {m.round for m in status.members} == {0}


def test_who_drains_or_is_out_of_the_view_is_shown_as_such() -> None:
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.c")
    job.hear(0, Drain())
    job.wait(3.0, 0)  # slot 1 is silent for longer than its lease

    status = survey(job.coordinator, "digits", slot=0, now=job.now)

    assert [pod.state for pod in status.pods] == ["draining", "connected"]
    assert {m.member: m.phase for m in status.members}["1.0.c"] == "benched"


def test_a_job_without_members_has_a_status() -> None:
    status = survey(JobOnPaper().coordinator, "digits", slot=0, now=0.0)

    assert (status.view, status.round, status.pods, status.members) == (0, 0, (), ())
