"""Who may take over, when, and who must wait."""

from dataclasses import replace

import pytest

from dssync import contract
from dssync.control import ballots as b
from dssync.control.ballots import Phase
from dssync.control.peers import Answer, Leader
from dssync.control.record import Record
from unit.control.candidate import FIRST, LAUNCHERS, RECORD, Candidate


def test_a_link_that_is_back_in_time_costs_nothing() -> None:
    candidate = Candidate()
    candidate.does(b.LinkLost())
    candidate.waits(0.15)
    candidate.does(b.Linked(1))
    candidate.waits(1.0)

    assert candidate.election.phase is Phase.FOLLOWING
    assert not candidate.did


def test_a_candidate_with_more_than_half_takes_over_with_the_next_term() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 6))

    candidate.does(b.LinkLost())
    candidate.waits(0.6)

    assert candidate.election.phase is Phase.LEADING
    assert (candidate.record.holder, candidate.record.term) == ("pod1", 2)
    (lead,) = candidate.led
    assert lead.electorate.reached == {"pod1", "pod2", "pod3", "pod4", "pod5"}


def test_answers_from_before_it_followed_somebody_count_no_longer() -> None:
    """They said that nobody leads: it is cut off from all who have found a coordinator since."""
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.does(b.LinkLost())
    candidate.waits(0.25)
    second = Leader(2, "pod2", "host:2")
    candidate.record = replace(RECORD, version="2", holder="pod2", term=2)
    candidate.does(b.Heard(second), b.Linked(2))
    candidate.answers.clear()

    candidate.does(b.LinkLost())
    candidate.waits(0.5)

    assert candidate.election.phase in (Phase.CANDIDATE, Phase.CHALLENGING)
    assert candidate.record.holder == "pod2"


def test_lower_slots_come_first() -> None:
    lower, higher = Candidate(1), Candidate(5)
    for candidate in (lower, higher):
        candidate.hears_from(range(1, 8))
        candidate.does(b.LinkLost())
        candidate.waits(0.45)

    assert lower.led
    assert not higher.led


def test_whoever_is_linked_to_the_coordinator_blocks_for_ten_seconds() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8), FIRST)

    candidate.does(b.LinkLost())
    candidate.waits(9.5)
    assert not candidate.led

    candidate.waits(1.5)
    assert candidate.led


def test_a_coordinator_is_protected_anew_from_who_has_led_or_followed_since() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8), FIRST)
    candidate.does(b.LinkLost())
    candidate.waits(11.0)
    assert candidate.led
    third = Leader(3, "pod3", "host:3")
    candidate.record = Record("9", "pod3", 3, {contract.RECORD_ADDRESS: "host:3"})
    candidate.hears_from(range(2, 8), third)

    candidate.waits(9.5)
    too_early = len(candidate.led) > 1
    candidate.waits(2.5)

    assert not too_early
    assert len(candidate.led) == 2


def test_who_was_blocked_and_is_no_longer_is_blocked_for_ten_seconds_again() -> None:
    candidate = Candidate(view=LAUNCHERS[:4])
    candidate.hears_from(range(2, 3), FIRST)
    candidate.does(b.LinkLost())
    candidate.waits(8.0)
    candidate.hears_from(range(2, 3))
    candidate.waits(1.0)
    candidate.hears_from(range(2, 4), FIRST)

    candidate.waits(9.0)

    assert not candidate.led


def test_half_or_less_challenges_and_a_coordinator_that_answers_stays() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 5))
    candidate.does(b.LinkLost())
    candidate.waits(1.5)
    assert candidate.record.values[contract.RECORD_CHALLENGE] == "pod1"

    candidate.record = replace(RECORD, version="9")
    candidate.waits(9.5)

    assert not candidate.led
    assert not candidate.record.challenged


@pytest.mark.parametrize("count", [2, 8])
def test_an_unanswered_challenge_takes_over_after_ten_seconds(count: int) -> None:
    candidate = Candidate(view=LAUNCHERS[:count])
    candidate.does(b.LinkLost())
    candidate.waits(9.5)
    assert not candidate.led

    candidate.waits(2.0)

    assert candidate.led
    assert not candidate.record.challenged


def test_time_in_which_the_arbiter_answers_nobody_is_no_time_to_answer_a_challenge() -> None:
    candidate = Candidate()
    candidate.does(b.LinkLost())
    candidate.waits(1.5)
    assert candidate.record.challenged
    candidate.reachable = False
    candidate.waits(20.0)
    candidate.reachable = True

    candidate.waits(9.0)
    too_early = bool(candidate.led)
    candidate.waits(2.0)

    assert not too_early
    assert candidate.led


def test_a_challenge_that_was_written_late_is_waited_for_from_then_on() -> None:
    """The swap itself took long."""
    candidate = Candidate()
    candidate.does(b.LinkLost())
    candidate.waits(0.25)
    candidate.writes_late = True
    candidate.waits(8.0)
    assert not candidate.record.challenged
    candidate.writes()

    candidate.waits(9.0)
    too_early = bool(candidate.led)
    candidate.waits(2.0)

    assert not too_early
    assert candidate.led


def test_the_last_one_takes_over_at_once_if_the_others_have_ended() -> None:
    candidate = Candidate()
    candidate.does(b.LinkLost(), b.ExitsSeen(frozenset(f"pod{n}" for n in (0, 2, 3, 4, 5, 6, 7))))
    candidate.waits(0.5)

    assert candidate.led


def test_exits_that_the_operator_confirmed_count() -> None:
    candidate = Candidate(view=LAUNCHERS[:2])
    candidate.record = replace(RECORD, values={**RECORD.values, contract.RECORD_GONE: '["pod0"]'})
    candidate.does(b.LinkLost())
    candidate.waits(0.5)

    assert candidate.led


def test_nobody_takes_over_without_the_arbiter_and_somebody_does_when_it_is_back() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.reachable = False
    candidate.does(b.LinkLost())
    candidate.waits(60.0)
    assert not candidate.led

    candidate.reachable = True
    candidate.waits(1.0)

    assert candidate.led


def test_while_the_arbiter_is_out_of_reach_a_candidate_says_that_nobody_leads() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.reachable = False
    candidate.does(b.LinkLost())
    candidate.waits(0.6)
    too_early = b.NobodyLeads() in candidate.did
    candidate.waits(2.0)

    assert not too_early
    assert candidate.did.count(b.NobodyLeads()) > 2


def test_who_hears_of_somebody_that_is_linked_does_not_say_so() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8), FIRST)
    candidate.reachable = False
    candidate.does(b.LinkLost())
    candidate.waits(30.0)

    assert b.NobodyLeads() not in candidate.did


def test_a_swap_that_succeeded_without_an_answer_is_found_out() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.reachable = False
    candidate.does(b.LinkLost())
    candidate.waits(1.0)

    candidate.record = replace(RECORD, version="2", holder="pod1", term=2)
    candidate.reachable = True
    candidate.waits(1.0)

    assert [lead.record.term for lead in candidate.led] == [2]


def test_who_loses_the_swap_follows_the_winner() -> None:
    candidate = Candidate(2)
    candidate.hears_from(range(1, 8))
    candidate.does(b.LinkLost())
    candidate.waits(0.3)
    winner = {contract.RECORD_ADDRESS: "host:1"}
    candidate.record = Record("2", "pod1", 2, winner)
    candidate.waits(0.5)

    assert not candidate.led
    assert b.Follow(Leader(2, "pod1", "host:1")) in candidate.did


def test_a_coordinator_that_reads_another_term_steps_down_and_follows() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.does(b.LinkLost())
    candidate.waits(0.6)
    assert candidate.election.leads

    candidate.record = Record("9", "pod5", 3, {contract.RECORD_ADDRESS: "host:5"})
    candidate.waits(0.5)

    assert b.StepDown() in candidate.did
    assert candidate.election.leader == Leader(3, "pod5", "host:5")


def test_a_coordinator_hears_how_old_what_it_reads_is() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.does(b.LinkLost())
    candidate.waits(0.6)
    assert candidate.election.leads
    (lead,) = candidate.led
    candidate.did.clear()
    looked = candidate.election.handle(b.Ticked(), candidate.now + 1.0)

    held = candidate.election.handle(b.Looked(candidate.record), candidate.now + 4.0)

    assert lead.age_seconds == 0.0
    assert looked == [b.Look()]
    assert held[0] == b.Hold(candidate.record, pytest.approx(3.0))


def test_an_appointed_successor_asks_nobody() -> None:
    candidate = Candidate(6)
    candidate.does(b.Appointed(1))
    candidate.waits(0.2)

    assert candidate.record.holder == "pod6"


def test_a_successor_says_that_nobody_leads_only_when_its_link_to_the_coordinator_is_lost() -> None:
    """Without the arbiter it cannot take over, so the coordinator stays."""
    candidate = Candidate(6)
    candidate.reachable = False
    candidate.does(b.Appointed(1))
    candidate.waits(20.0)
    too_early = b.NobodyLeads() in candidate.did

    candidate.does(b.LinkLost())
    candidate.waits(2.0)

    assert not too_early
    assert b.NobodyLeads() in candidate.did


def test_a_coordinator_whom_nobody_succeeds_stays() -> None:
    leader = Candidate(slot=0)
    leader.record = replace(RECORD, holder="", term=0)
    leader.does(b.LinkLost())
    leader.waits(2.0)
    leader.does(b.Resign(LAUNCHERS[1]))
    assert leader.election.phase is Phase.STEPPING_DOWN

    leader.does(b.Stay())

    assert leader.election.phase is Phase.LEADING


def test_a_newcomer_leaves_the_election_to_those_of_the_view() -> None:
    candidate = Candidate(7, view=LAUNCHERS[:4])
    candidate.hears_from(range(1, 4))
    candidate.does(b.LinkLost())
    candidate.waits(15.0)

    assert not candidate.led


@pytest.mark.parametrize("leads", [True, False])
def test_who_reads_that_its_pod_has_been_replaced_coordinates_no_more(leads: bool) -> None:
    """Its slot is another's: what it coordinated would have two pods in one slot."""
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    if leads:
        candidate.does(b.LinkLost())
        candidate.waits(0.6)
    gone = {**candidate.record.values, contract.RECORD_GONE: '["pod1"]'}
    candidate.record = replace(candidate.record, values=gone)
    candidate.did.clear()

    candidate.does(b.LinkLost())
    candidate.waits(20.0)

    assert [each for each in candidate.did if isinstance(each, b.Fenced)] == [b.Fenced()]
    assert (b.StepDown() in candidate.did) is leads
    assert not candidate.led
    assert candidate.election.answer == Answer("pod1", None)
