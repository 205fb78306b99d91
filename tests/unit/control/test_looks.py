"""When a coordinator that may have been deposed waits."""

import pytest

from dssync.control import messages as m
from dssync.control.events import ExitsConfirmed, Looked, Paused, Resigning
from dssync.control.quorum import EXIT_SECONDS, READ_SECONDS, Quorum
from dssync.control.takeover import Launcher
from unit.control.job import JobOnPaper

ELSEWHERE = Launcher(1, "pod1", "host:1", "")
STEP = 0.1


def two(now: float = 0.0) -> JobOnPaper:
    """Two members in two launchers that have come to round 0."""
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.b")
    return job


def frozen(job: JobOnPaper) -> int:
    """Return how many rounds are frozen."""
    assert job.coordinator.world is not None
    return job.coordinator.world.rounds.next_round


def test_a_launcher_that_is_silent_for_a_lease_is_missing_though_its_connection_stands() -> None:
    job = two()
    job.wait(3.0, 0)

    assert [each.uid for each in job.coordinator.job.quorum.missing] == ["pod1"]
    job.hear(1, m.Heartbeat(()))
    assert job.coordinator.job.quorum.missing == ()


def test_after_a_pause_everybody_is_missing_until_heard_and_the_last_look_is_old() -> None:
    job = two()
    quorum = job.coordinator.job.quorum
    job.takes(Looked())
    job.takes(Paused())
    missing = [each.uid for each in quorum.missing]

    job.hear(0, m.Heartbeat(()))
    job.hear(1, m.Heartbeat(()))

    assert missing == ["pod0", "pod1"]
    assert quorum.missing == ()
    # What was heard may have been said before the pause.
    assert quorum.holds(job.now)


def test_a_look_is_worth_some_seconds_while_somebody_is_missing() -> None:
    quorum = Quorum()
    quorum.lost(ELSEWHERE, 0.0)
    assert quorum.holds(0.0)

    quorum.looked(1.0)

    assert not quorum.holds(1.0 + READ_SECONDS)
    assert quorum.holds(1.0 + READ_SECONDS + STEP)


def test_a_look_is_as_old_as_the_question() -> None:
    job = two()
    job.wait(3.0, 0)

    job.takes(Looked(READ_SECONDS - 1.0))

    assert job.coordinator.job.may_decide(job.now + 1.0)
    assert not job.coordinator.job.may_decide(job.now + 1.0 + STEP)


def test_a_short_pause_ages_a_look_and_nobody_is_missing_for_it() -> None:
    job = two()
    job.wait(3.0, 0)
    job.takes(Looked())

    job.takes(Paused(1.5))

    quorum = job.coordinator.job.quorum
    assert [each.uid for each in quorum.missing] == ["pod1"]
    assert not quorum.holds(job.now + READ_SECONDS - 1.5)
    assert quorum.holds(job.now + READ_SECONDS - 1.5 + STEP)


@pytest.mark.parametrize("late", [False, True])
def test_an_exit_long_after_the_loss_says_nothing_of_the_time_between(late: bool) -> None:
    quorum = Quorum()
    quorum.lost(ELSEWHERE, 0.0)

    quorum.ended(["pod1"], EXIT_SECONDS + (STEP if late else 0.0))

    assert quorum.missing == ()
    assert quorum.holds(10.0) is late
    quorum.looked(10.0)
    assert not quorum.holds(10.0)


def test_the_end_waits_for_a_look_that_was_begun_after_everybody_confirmed_it() -> None:
    quorum = Quorum()
    quorum.lost(ELSEWHERE, 0.0)
    quorum.looked(1.0)

    assert not quorum.may_end()
    quorum.looked(2.0)
    assert not quorum.may_end()
    quorum.looked(3.0)
    assert quorum.may_end()


def test_the_end_waits_for_looks_after_a_launcher_was_found_again() -> None:
    # What was heard of it may be old: it had waited for a way to be free again.
    quorum = Quorum()
    quorum.lost(ELSEWHERE, 0.0)
    quorum.found("pod1")

    assert not quorum.may_end()
    quorum.looked(1.0)
    assert not quorum.may_end()
    quorum.looked(2.0)
    assert quorum.may_end()


def test_the_end_waits_for_nothing_while_nobody_is_missing() -> None:
    assert Quorum().may_end()


def test_a_coordinator_that_nobody_succeeds_freezes_rounds_again() -> None:
    job = two()
    before = frozen(job)
    job.coordinator.handle(Resigning(), job.now)
    job.arrive("0.0.a")
    assert frozen(job) == before

    job.coordinator.handle(Resigning(False), job.now)

    assert frozen(job) > before


def test_an_end_that_waits_for_looks_does_not_come_when_its_last_member_has_left() -> None:
    job = two()
    job.disconnect(1)
    job.wait(0.5, 0)
    job.takes(Looked())
    job.says("0.0.a", m.Abandoned(0, 0), m.Register((m.Track("", 1),), 1), m.Take(1, 0))
    job.apply("0.0.a", batches=(0,))
    final = job.assignment("0.0.a")
    job.says("0.0.a", m.Confirm(final.round, final.attempt, ()))

    job.says("0.0.a", m.Leave("nan"))
    job.enters("0.0.a")
    job.wait(5.2, 0)
    for _ in range(3):
        job.takes(Looked())

    assert final.kind == "final"
    assert job.coordinator.world is not None
    assert not job.coordinator.completed


def test_the_last_pod_to_drain_waits_for_a_look_while_somebody_is_missing() -> None:
    # Its flush would be a round that is frozen without one.
    job = two()
    job.disconnect(1)
    job.wait(0.5, 0)
    before = frozen(job)
    job.hear(0, m.Drain())
    job.hear(0, m.Drain())
    held = (frozen(job), job.of("0.0.a", m.LastRound))

    job.takes(Looked())

    assert held == (before, [])
    assert frozen(job) == before + 1
    assert job.assignment("0.0.a").kind == "suspend"
    assert job.of("0.0.a", m.LastRound) == [m.LastRound(before)]


def test_a_member_that_was_put_out_is_named_to_all_launchers_until_its_pod_has_ended() -> None:
    job = two()
    job.says("0.0.a", m.Register((m.Track("", 10),), 1))
    job.disconnect(1)
    job.wait(0.5, 0)
    assert job.coordinator.job.put_out == {"1.0.b": "pod1"}
    news = [each for slot, each in job.sent if slot == 0 and isinstance(each, m.LedgerNews)]
    assert news[-1].put_out == ("1.0.b",)

    job.coordinator.handle(ExitsConfirmed(("pod1",)), job.now)

    assert job.coordinator.job.put_out == {}
