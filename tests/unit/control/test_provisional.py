"""While nobody leads, members repeat the groups of the last period and share what data is left."""

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.adoption import Electorate
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, ControlSettings, Received
from dssync.control.ledger import Ledger
from dssync.control.member import MemberState
from dssync.control.records import CommitRecords
from dssync.control.share import Share
from dssync.control.takeover import NewTerm, NobodyLeads

ROW = (m.Stage("row", ("0.0.a", "1.0.b"), 0.5),)
COLUMN = (m.Stage("column", ("0.0.a", "2.0.c"), 0.5),)
HELLO = m.Enter(("w float32 3",), m.SyncSettings("grid", 2, 1, "relaxed", 0), "address")


def assign(number: int, *, view: int = 1, kind: str = "train", strict: bool = False) -> m.Assign:
    """One round of a schedule whose groups repeat after two rounds."""
    stages = (ROW, COLUMN)[number % 2] if kind == "train" else ()
    return m.Assign(number, 0, kind, strict, stages, (), 4, view, "0.0.a", "", True, 0.0, 2)


def applied(*rounds: m.Assign) -> MemberState:
    """Return a member that has applied these rounds and knows of no other."""
    state = MemberState()
    state.history.said(HELLO)
    state.handle(NewTerm(1))
    state.handle(m.Start(rounds[0].round, 0, True))
    for each in rounds:
        state.handle(each)
        state.apply(each, ())
    return state


def go_on(state: MemberState, count: int) -> list[tuple[int, tuple[m.Stage, ...]]]:
    """Apply what there is to do while nobody leads."""
    state.handle(NobodyLeads())
    done = []
    for _ in range(count):
        now = state.assignment
        if now is None:
            break
        assert state.apply(now, ()) is not None
        done.append((now.round, now.stages))
    return done


def test_the_groups_of_the_last_period_come_round_again() -> None:
    state = applied(assign(4), assign(5))

    assert go_on(state, 4) == [(6, ROW), (7, COLUMN), (8, ROW), (9, COLUMN)]


def test_a_member_without_weight_and_mates_does_not_race_through_rounds_of_its_own() -> None:
    lonely = replace(assign(4), stages=(), weighted=False)
    state = applied(lonely, replace(lonely, round=5))

    assert go_on(state, 3) == []


def test_a_flush_hides_no_group() -> None:
    state = applied(assign(4), assign(5), assign(6, kind="flush", strict=True), assign(7))

    assert go_on(state, 2) == [(8, ROW), (9, COLUMN)]


def test_groups_of_an_earlier_view_are_not_repeated() -> None:
    state = applied(assign(4), assign(5, view=2))

    assert go_on(state, 3) == [(6, ()), (7, COLUMN), (8, ())]


def test_a_group_that_was_given_up_keeps_its_values_from_then_on() -> None:
    state = applied(assign(4), assign(5))
    state.handle(NobodyLeads())
    now = state.assignment
    assert now is not None

    assert state.give_up(now)

    assert state.apply(now, ()) is None
    assert go_on(state, 4) == [(6, ()), (7, COLUMN), (8, ()), (9, COLUMN)]


def test_strict_rounds_wait_for_a_coordinator() -> None:
    state = applied(assign(4, strict=True), assign(5, strict=True))

    assert go_on(state, 1) == []


def test_a_flush_that_is_open_waits_for_a_coordinator() -> None:
    state = applied(assign(4), assign(5))
    flush = assign(6, kind="flush", strict=True)
    state.handle(flush)
    state.handle(NobodyLeads())

    assert state.assignment is flush
    assert not state.give_up(flush)


def test_who_has_nothing_to_train_on_does_not_rush_through_rounds() -> None:
    state = applied(assign(4), assign(5))
    state.handle(NobodyLeads())
    assert state.assignment is not None

    state.handle(m.Leases(0, ()))
    state.apply(state.assignment, ())

    assert state.assignment is None
    state.handle(m.Leases(0, (3,)))
    assert state.assignment is not None


def test_what_nobody_has_answered_is_asked_again_once() -> None:
    state = applied(assign(4), assign(5))
    state.history.said(m.Take(2, 0))
    state.leases(0).wanted = True

    assert state.handle(NobodyLeads()) == [m.Take(2, 0)]
    assert state.handle(NobodyLeads()) == []


def test_a_new_term_ends_them_and_counts_them() -> None:
    state = applied(assign(4), assign(5))
    go_on(state, 3)

    (report,) = state.handle(NewTerm(2))

    assert (report.next_round, report.known_round, report.applied_round) == (9, 9, 8)
    last = state.assignment
    assert last is not None
    state.apply(last, ())
    assert state.assignment is None


@pytest.mark.parametrize("message", [m.Start(4, 0, True), m.LastRound(6)])
def test_newcomers_and_leavers_do_not_go_on_alone(message: m.ToMemberBody) -> None:
    state = MemberState() if isinstance(message, m.Start) else applied(assign(4), assign(5))
    state.handle(message)

    assert go_on(state, 1) == []


# --- data -----------------------------------------------------------------------------------


@given(st.integers(1, 9), st.lists(st.integers(0, 40), min_size=2, max_size=6))
def test_two_members_never_share_a_batch_however_old_their_ledgers(
    members: int, cursors: list[int]
) -> None:
    seen: set[int] = set()
    for index, cursor in enumerate(cursors[:members]):
        ledger = m.LedgerState(
            2, (m.TrackState("", 15, 30, ()), m.TrackState("x", 20, cursor + 30, ())), 0
        )
        batches = Share(index, members).batches(ledger, 1, 100, frozenset())
        assert all(cursor + 30 <= batch < 70 for batch in batches)
        assert not seen.intersection(batches)
        seen.update(batches)


def test_a_launcher_gives_out_what_it_has_not_seen_given() -> None:
    records = CommitRecords()
    assert records.give_out("a", m.Take(2, 0), Share(1, 2)) == m.Leases(0, ())
    records.learn(m.LedgerNews(m.LedgerState(1, (m.TrackState("", 12, 4, (1,)),), 0)))
    records.told("a", m.TO_MEMBER.encode_text(m.Leases(0, (5,))))

    assert records.give_out("a", m.Take(2, 0), Share(1, 2)) == m.Leases(0, (7, 9))
    assert records.give_out("a", m.Take(2, 0), Share(1, 2)) == m.Leases(0, (11,))

    records.said("a", m.MEMBER.encode_text(m.Applied(3, 0, (7,))))
    assert records.report.provisional == (7, 9, 11)
    assert records.report.committed == (7,)


def test_a_new_term_counts_provisional_batches_and_their_repeats_and_puts_nobody_out() -> None:
    known = Ledger()
    known.register((m.Track("", 10),), 1)
    known.take("0.0.a", 4)
    known.commit("0.0.a", (0,))
    reports = {
        0: m.LedgerReport(known.state, (1,), (m.Held("0.0.a", (2, 3, 5)),), (), term=1),
        1: m.LedgerReport(
            known.state, (1, 5), (m.Held("1.0.b", (3, 7)),), (), (1, 3, 5, 7), term=1
        ),
    }
    keys = {0: "0.0.a", 1: "1.0.b"}
    electorate = Electorate(frozenset({"pod0", "pod1"}), frozenset())
    coordinator = Coordinator(2, ControlSettings(desired=2, minimum=1), electorate)

    for slot, key in keys.items():
        member = applied(assign(4), assign(5))
        (report,) = member.handle(NewTerm(2))
        report = replace(report, enter=m.MEMBER.encode_text(HELLO))
        coordinator.handle(Connected(m.Hello(slot, f"pod{slot}", 1, ("", "", ""))), 0.0)
        coordinator.handle(Received(slot, m.Standing((key,), 1, reports[slot])), 0.0)
        coordinator.handle(Received(slot, m.FromMember(key, m.MEMBER.encode_text(report))), 0.0)

    assert coordinator.world is not None
    assert set(coordinator.world.view.members) == set(keys.values())
    ledger = coordinator.ledger
    assert (ledger.committed, ledger.repeated) == (3, 1)
    assert ledger.available == 10 - 3 - 3
