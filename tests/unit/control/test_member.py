"""A member decides once for each attempt, applied or abandoned, and nothing stale moves it."""

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.member import MemberState
from dssync.control.takeover import NewTerm, Report


def assign(number: int, attempt: int = 0, *, strict: bool = False) -> m.Assign:
    return m.Assign(number, attempt, "train", strict, (), (), 2, 1, "0.0.a", "", True, 0.0)


@pytest.fixture
def state() -> MemberState:
    """A member that starts in round 5."""
    started = MemberState()
    started.handle(m.Start(5, 0, True))
    return started


def test_an_assignment_is_current_when_its_round_comes(state: MemberState) -> None:
    later, now = assign(6), assign(5)
    state.handle(later)
    assert state.assignment is None

    state.handle(now)

    assert state.assignment is now
    assert state.upcoming == [now, later]


def test_applying_ends_the_round_and_says_what_was_consumed(state: MemberState) -> None:
    now = assign(5)
    state.handle(now)

    assert state.apply(now, (7, 8)) == m.Applied(5, 0, (7, 8))
    assert state.next_round == 6
    assert state.apply(now, ()) is None


def test_an_abandoned_attempt_cannot_be_applied(state: MemberState) -> None:
    now = assign(5)
    state.handle(now)

    assert state.handle(m.Abandon(5, 0)) == [m.Abandoned(5, 0)]

    assert state.apply(now, ()) is None
    assert state.next_round == 5


def test_an_abandon_after_apply_is_not_answered(state: MemberState) -> None:
    now = assign(5)
    state.handle(now)
    state.apply(now, ())

    assert state.handle(m.Abandon(5, 0)) == []


def test_a_future_round_can_be_abandoned_at_once(state: MemberState) -> None:
    state.handle(assign(7))

    assert state.handle(m.Abandon(7, 0)) == [m.Abandoned(7, 0)]
    assert state.known(7) is None


def test_a_retry_replaces_the_attempt_and_the_old_one_does_not_come_back(
    state: MemberState,
) -> None:
    first, second = assign(5), assign(5, 1)
    state.handle(first)
    state.handle(second)
    state.handle(first)

    assert state.assignment is second
    assert not state.is_current(first)


def test_a_late_abandon_of_an_old_attempt_leaves_the_new_one(state: MemberState) -> None:
    state.handle(assign(5, 1))

    state.handle(m.Abandon(5, 0))

    assert state.assignment == assign(5, 1)


def test_a_skip_moves_on_over_all_skipped_rounds(state: MemberState) -> None:
    state.handle(m.Skip(6, 7))
    state.handle(m.Skip(5, 6))

    assert state.next_round == 7


def test_a_skipped_round_does_not_come_back(state: MemberState) -> None:
    state.handle(m.Skip(6, 7))
    state.handle(assign(6))

    assert state.known(6) is None


def test_a_commit_counts_for_its_attempt_only(state: MemberState) -> None:
    first, second = assign(5, strict=True), assign(5, 1, strict=True)
    state.handle(first)
    state.handle(m.Commit(5, 0, ()))

    assert state.is_committed(first)
    assert not state.is_committed(second)


def test_what_was_sent_to_a_former_life_is_ignored(state: MemberState) -> None:
    state.handle(m.Leases(0, (3, 4)))
    state.restart()
    state.handle(m.Start(7, 0, True))
    state.handle(assign(9))
    state.handle(m.Leases(0, (5,)))
    assert not state.started

    state.handle(m.Start(8, 1, False, generation=1))

    assert state.upcoming == []
    assert list(state.leases(0).batches) == []
    assert not state.starved
    assert not state.weighted


def test_a_benched_member_stands_in_no_attempt(state: MemberState) -> None:
    now = assign(5)
    state.handle(now)

    state.handle(m.Bench("lease"))

    assert not state.is_current(now)
    assert state.benched == "lease"


def test_an_empty_answer_to_take_starves_until_more_comes(state: MemberState) -> None:
    state.handle(m.Leases(0, ()))
    assert state.starved

    state.handle(m.Leases(0, (3,)))

    assert not state.starved
    assert list(state.leases(0).batches) == [3]


def test_one_track_without_data_does_not_starve_a_member(state: MemberState) -> None:
    state.handle(m.Leases(0, ()))
    state.handle(m.Leases(1, (3,)))

    assert not state.starved


def test_a_skip_after_the_decision_undoes_nothing(state: MemberState) -> None:
    """What was decided counts this member's values: it applies them, however late."""
    now = assign(5, strict=True)
    state.handle(now)
    state.handle(m.Commit(5, 0, (7,)))

    assert state.ended_by(m.Skip(5, 6)) == []
    state.handle(m.Skip(5, 6))

    assert state.is_current(now)
    assert state.apply(now, (7,)) == m.Applied(5, 0, ())


def test_a_joiner_that_was_given_weight_reports_it_before_its_first_sum() -> None:
    # Nobody was left whose values counted. It trains, and that must not be replaced.
    joiner = MemberState()
    joiner.handle(m.Start(5, 0, False))
    joiner.handle(replace(assign(5), weighted=False))
    assert not reported(joiner).weighted

    joiner.handle(assign(6))

    assert reported(joiner).weighted


def reported(state: MemberState) -> Report:
    """Return what a member reports to the coordinator of another term."""
    (report,) = state.handle(NewTerm(2))
    assert isinstance(report, Report)
    return report


def test_progress_is_that_of_the_last_round_applied(state: MemberState) -> None:
    now = replace(assign(5), progress=0.6)
    state.handle(now)
    assert state.progress == 0.0

    state.apply(now, ())

    assert state.progress == 0.6


def test_a_draining_member_leaves_after_its_last_round(state: MemberState) -> None:
    state.handle(m.LastRound(5))
    assert not state.leaving
    now = assign(5)
    state.handle(now)

    state.apply(now, ())

    assert state.leaving


def test_a_member_that_takes_part_in_no_round_leaves_at_once() -> None:
    state = MemberState()

    state.handle(m.LastRound(-1))

    assert state.leaving


ROUNDS = st.integers(4, 8)
ATTEMPTS = st.integers(0, 2)
MESSAGES = st.one_of(
    st.builds(assign, ROUNDS, ATTEMPTS),
    st.builds(m.Abandon, ROUNDS, ATTEMPTS),
    st.builds(m.Skip, ROUNDS, ROUNDS),
    st.builds(m.Commit, ROUNDS, ATTEMPTS),
    st.just("apply"),
)


@given(st.lists(MESSAGES, max_size=40))
def test_no_sequence_makes_an_attempt_both_applied_and_abandoned(
    steps: list[m.ToMemberBody | str],
) -> None:
    state = MemberState()
    state.handle(m.Start(5, 0, True))
    applied: list[int] = []
    abandoned: set[tuple[int, int]] = set()

    for step in steps:
        if isinstance(step, str):
            current = state.assignment
            message = state.apply(current, ()) if current is not None else None
            if message is not None:
                assert (message.round, message.attempt) not in abandoned
                applied.append(message.round)
        elif isinstance(step, m.Assign) and (step.round, step.attempt) in abandoned:
            continue  # An assignment never overtakes its own abandon: connections keep order.
        else:
            before = state.next_round
            for answer in state.handle(step):
                assert isinstance(answer, m.Abandoned)
                assert answer.round >= before
                abandoned.add((answer.round, answer.attempt))
            assert state.next_round >= before

    assert applied == sorted(set(applied))
