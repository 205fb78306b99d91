"""Who may follow another coordinator is missing, in later terms, too, until it has ended."""

from collections.abc import Callable

import pytest

from dssync import contract
from dssync.agent.recorder import entries
from dssync.control import ballots as b, messages as m
from dssync.control.adoption import Electorate
from dssync.control.coordinator import Coordinator
from dssync.control.events import (
    Connected,
    ControlSettings,
    Effect,
    ExitsConfirmed,
    Looked,
    Received,
    Send,
    Ticked,
)
from dssync.control.record import Record, launchers_value, missing_value
from dssync.control.takeover import Launcher, Launchers
from unit.control.job import JobOnPaper
from unit.control.test_election import LAUNCHERS as HOSTS, RECORD, Candidate

NOTHING = m.LedgerReport(None, (), (), ())
A, B = "0.0.a", "1.0.b"


def uids(launchers: tuple[Launcher, ...]) -> list[str]:
    return [each.uid for each in launchers]


def connected(slot: int, uid: str = "") -> Connected:
    return Connected(m.Hello(slot, uid or f"pod{slot}", 1, ("", "", ""), f"host:{slot}"))


def second_term(*former: int) -> Coordinator:
    """A coordinator of term 2, whose launchers were these before; pod 0 alone is here."""
    everybody = frozenset(f"pod{slot}" for slot in former)
    known = tuple(HOSTS[slot] for slot in former)
    coordinator = Coordinator(
        2, ControlSettings(2, 1), Electorate(everybody, everybody, False, known)
    )
    coordinator.handle(connected(0), 0.0)
    return coordinator


def begin(coordinator: Coordinator, now: float = 1.0) -> list[Effect]:
    """Let the time for reports pass."""
    effects = coordinator.handle(Received(0, m.Standing((), 1, NOTHING)), now)
    return effects + coordinator.handle(Ticked(), now + 1.0)


def told(effects: list[Effect]) -> list[Launchers]:
    sent = [each.message for each in effects if isinstance(each, Send)]
    return [each for each in sent if isinstance(each, Launchers)]


# --- a new term -------------------------------------------------------------------------------


def test_whoever_was_there_and_is_not_here_when_a_term_begins_is_missing() -> None:
    coordinator = second_term(0, 1, 2)
    coordinator.handle(connected(1), 0.1)
    coordinator.handle(Looked(), 0.5)
    before = coordinator.job.quorum.missing

    effects = begin(coordinator)

    assert before == ()
    assert uids(coordinator.job.quorum.missing) == ["pod2"]
    assert [(uids(each.launchers), uids(each.missing)) for each in told(effects)] == [
        (["pod0", "pod1"], ["pod2"])
    ] * 2


def test_a_term_whose_launchers_are_not_all_here_begins_with_a_look() -> None:
    coordinator = second_term(0, 1)

    begin(coordinator)
    waits = coordinator.gathering is not None
    coordinator.handle(Looked(), 3.0)

    assert waits
    assert coordinator.gathering is None
    assert coordinator.job.may_decide(8.0)
    assert not coordinator.job.may_decide(8.1)
    assert not coordinator.job.quorum.may_end()


def test_who_comes_later_is_not_missing() -> None:
    coordinator = second_term(0, 1)
    coordinator.handle(Looked(), 0.5)
    begin(coordinator)

    effects = coordinator.handle(connected(1), 2.5)

    assert coordinator.job.quorum.missing == ()
    assert [uids(each.missing) for each in told(effects)] == [[], []]


def test_whose_end_is_confirmed_is_missing_no_more_and_the_launchers_hear_so() -> None:
    coordinator = second_term(0, 1)
    coordinator.handle(Looked(), 0.5)
    coordinator.handle(Ticked(), 1.5)

    effects = coordinator.handle(ExitsConfirmed(("pod1",)), 2.0)

    assert coordinator.job.quorum.missing == ()
    assert [uids(each.missing) for each in told(effects)] == [[]]
    # It may have led meanwhile: nobody knows since when it was missing.
    assert not coordinator.job.may_decide(5.6)
    coordinator.handle(Looked(), 5.6)
    assert coordinator.job.may_decide(60.0)


@pytest.mark.parametrize("first", [True, False])
def test_whose_slot_is_another_pods_has_ended(first: bool) -> None:
    coordinator = second_term(0, 1)
    coordinator.handle(Looked(), 0.5)
    if first:
        coordinator.handle(connected(1, "new"), 0.6)
        coordinator.handle(Received(1, m.Standing((), 1, NOTHING)), 0.6)

    begin(coordinator)
    if not first:
        coordinator.handle(connected(1, "new"), 2.1)

    assert coordinator.job.quorum.missing == ()


def test_the_record_names_who_is_missing_and_no_longer_once_nobody_is() -> None:
    coordinator = second_term(0, 1)
    coordinator.handle(Looked(), 0.5)
    begin(coordinator)
    missed = Record(values=entries(coordinator))

    coordinator.handle(ExitsConfirmed(("pod1",)), 2.5)

    assert uids(missed.launchers) == ["pod0"]
    assert uids(missed.missing) == ["pod1"]
    assert Record(values=entries(coordinator)).missing == ()


# --- pods that drain --------------------------------------------------------------------------


def hangs_up(job: JobOnPaper) -> None:
    job.disconnect(1)
    job.wait(0.5, 0)


def falls_silent(job: JobOnPaper) -> None:
    job.wait(3.0, 0)


@pytest.mark.parametrize("lose", [hangs_up, falls_silent])
@pytest.mark.parametrize("has_ended", [True, False])
def test_a_pod_that_drains_is_missing_unless_its_workers_have_ended(
    lose: Callable[[JobOnPaper], None], has_ended: bool
) -> None:
    job = JobOnPaper(desired=2)
    job.begin(A, B)
    job.hear(1, m.Drain())
    job.says(A, m.Applied(0, 0, ()))
    job.says(B, m.Applied(0, 0, ()), m.Leave("drain"))
    if has_ended:
        job.hear(1, m.Exited(B, 0, False))

    lose(job)

    assert uids(job.coordinator.job.quorum.missing) == ([] if has_ended else ["pod1"])


# --- elections --------------------------------------------------------------------------------


def leading(candidate: Candidate) -> list[str]:
    """Let it take over; return whom its electorate says to have been there."""
    candidate.does(b.LinkLost())
    candidate.waits(1.0)
    (lead,) = candidate.led
    return sorted(uids(lead.electorate.launchers))


def test_who_takes_over_passes_on_whom_its_coordinator_missed() -> None:
    candidate = Candidate()
    candidate.record = Record("1", "pod0", 1, {contract.RECORD_ADDRESS: "host:0"})
    candidate.does(b.Viewed(HOSTS[:4], HOSTS[6:]), b.ExitsSeen(frozenset({"pod0", "pod7"})))
    candidate.hears_from(range(2, 4))

    known = leading(candidate)

    assert known == ["pod2", "pod3", "pod6"]
    assert uids(candidate.record.missing) == ["pod6"]
    assert uids(candidate.record.launchers) == ["pod1", "pod2", "pod3"]


def test_who_takes_over_counts_whom_only_the_record_names() -> None:
    """It was cut off, and the view is a later one by now."""
    candidate = Candidate(view=HOSTS[:3])
    later = {
        **RECORD.values,
        contract.RECORD_LAUNCHERS: launchers_value(HOSTS[:5]),
        contract.RECORD_MISSING: missing_value(HOSTS[5:6]),
        contract.RECORD_GONE: '["pod0", "pod3"]',
    }
    candidate.record = Record("2", "pod0", 1, later)
    candidate.hears_from(range(2, 3))

    assert leading(candidate) == ["pod2", "pod4", "pod5"]
    assert uids(candidate.record.missing) == ["pod5", "pod4"]
