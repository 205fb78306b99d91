"""Who stands for election after the end of a job: who has members that were not told of it."""

from dataclasses import replace

from dssync import contract
from dssync.control import ballots as b
from unit.control.candidate import Candidate


def test_after_the_end_of_the_job_nothing_is_a_loss() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.does(b.Finished(), b.LinkLost())
    candidate.waits(20.0)

    assert not candidate.did


def test_who_hears_of_the_end_before_its_members_do_takes_over_to_tell_them() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.does(b.Finished(told=False), b.LinkLost())
    candidate.waits(1.0)

    assert [each.electorate.over for each in candidate.led] == [True]


def test_who_was_told_with_its_members_stands_again_when_one_enters_anew() -> None:
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    candidate.does(b.Finished(), b.LinkLost())
    candidate.waits(1.0)
    before = list(candidate.led)
    candidate.does(b.Finished(told=False))
    candidate.waits(1.0)

    assert not before
    assert len(candidate.led) == 1


def test_whoever_was_not_told_of_the_end_that_the_record_tells_of_takes_over_to_hear_of_it() -> (
    None
):
    candidate = Candidate()
    candidate.hears_from(range(2, 8))
    ended = {**candidate.record.values, contract.RECORD_COMPLETED: "true"}
    candidate.record = replace(candidate.record, values=ended)
    candidate.does(b.LinkLost())
    candidate.waits(1.0)

    assert [each.electorate.over for each in candidate.led] == [True]
    assert candidate.record.completed


def test_nobody_trains_by_itself_after_the_end_that_the_record_tells_of() -> None:
    candidate = Candidate()
    ended = {**candidate.record.values, contract.RECORD_COMPLETED: "true"}
    candidate.record = replace(candidate.record, values=ended)
    candidate.does(b.LinkLost())
    candidate.waits(1.0)
    candidate.reachable = False
    candidate.waits(20.0)

    assert b.NobodyLeads() not in candidate.did
