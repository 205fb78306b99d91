"""Splits that seeds hardly draw: two at a time, or the arbiter away for one side of one.

Besides the invariants of every run, which each of these checks after each event.
"""

from itertools import pairwise

import pytest

from simulation.pod import Pod
from simulation.profile import Profile
from simulation.stage import RELAXED, STRICT, Stage, stages

RUNS = 4


def split_three_to_two(stage: Stage) -> tuple[list[Pod], list[Pod]]:
    """Cut the coordinator off with one other; the rest elects another. Return both sides."""
    stage.until(5.0)
    few = [stage.chief, stage.others[-1]]
    many = stage.others[:-1]
    stage.cut(few, many)
    stage.until(12.0)
    assert stage.chief in many
    return few, many


@pytest.mark.parametrize("profile", [STRICT, RELAXED], ids=lambda each: each.name)
def test_a_side_that_loses_the_arbiter_too_waits_while_the_other_goes_on(profile: Profile) -> None:
    """Its coordinator never met those who were missing before its term began."""
    for stage in stages(5, RUNS, profile):
        few, many = split_three_to_two(stage)
        second = stage.leader
        stage.lose_arbiter(*many)
        stage.until(20.0)
        held = stage.committed(2)
        stage.until(40.0)

        assert stage.chief in few, stage.won
        assert stage.committed(2) == held
        assert stage.committed(3) > held / 2
        assert second is not None
        assert second.hub is not None
        assert not second.hub.completed


def test_what_was_missing_is_missing_two_terms_later() -> None:
    """The coordinator of a term knows of it only by what the one before said."""
    for stage in stages(6, RUNS):
        stage.until(5.0)
        few, many = [stage.chief, stage.others[-1]], stage.others[:-1]
        stage.cut(few, many)
        stage.until(12.0)
        stage.chief.kill()
        stage.until(20.0)
        third = stage.cell.record.term
        assert stage.chief in many
        stage.lose_arbiter(*many)
        stage.until(28.0)
        held = stage.committed(third)
        stage.until(48.0)

        assert stage.chief in few, stage.won
        assert stage.committed(third) == held


def test_a_side_that_loses_the_arbiter_goes_on_when_those_who_were_missing_are_back() -> None:
    for stage in stages(5, RUNS):
        stage.until(5.0)
        few, many = [stage.chief, stage.others[-1]], stage.others[:-1]
        ways = stage.cut(few, many)
        stage.until(12.0)
        stage.network.unblock(ways)
        stage.until(18.0)
        stage.lose_arbiter(*stage.live_pods)
        stage.until(26.0)
        before = stage.committed(2)
        stage.until(36.0)

        assert stage.committed(2) > before + 50


def test_a_pod_that_is_cut_off_while_it_drains_is_missing() -> None:
    """It was not told that it may go: it may challenge, and win."""
    for stage in stages(4, RUNS, RELAXED):
        stage.until(5.0)
        first, drains = stage.chief, stage.others[-1]
        assert first.hub is not None
        drains.drain()
        seen = first.hub.coordinator.roster.pods[drains.spec.slot]
        while not seen.draining:
            stage.until(stage.scheduler.now + 0.001)
        stage.cut([drains], [first, *stage.others[:-1]])
        stage.lose_arbiter(first, *stage.others[:-1])
        stage.until(15.0)
        held = stage.committed(1)
        stage.until(22.0)

        assert stage.committed(1) == held


def test_a_pod_that_has_drained_is_not_missing() -> None:
    for stage in stages(4, RUNS, RELAXED):
        stage.until(5.0)
        drains = stage.others[-1]
        drains.drain()
        stage.until(8.0)
        stage.lose_arbiter(*stage.live_pods)
        stage.until(15.0)
        before = stage.committed(1)
        stage.until(20.0)

        assert not drains.alive
        assert stage.committed(1) > before + 20


def test_without_the_arbiter_a_job_goes_on_whose_last_coordinator_has_been_replaced() -> None:
    """Another pod has its slot: it has ended, whether or not anything else tells so."""
    for stage in stages(4, RUNS):
        stage.until(5.0)
        lost = stage.chief
        lost.kill()
        stage.until(12.0)
        stage.add_pod(lost.spec.workers, lost.spec.slot)
        stage.until(16.0)
        stage.lose_arbiter(*stage.live_pods)
        stage.until(23.0)
        term = stage.cell.record.term
        before = stage.committed(term)
        stage.until(30.0)

        assert stage.committed(term) > before + 20


def test_a_coordinator_that_stands_still_again_and_again_counts_that_time_for_its_looks() -> None:
    """Each time shorter than a lease."""
    for stage in stages(4, RUNS):
        stage.until(5.0)
        first = stage.chief
        hub = first.hub
        assert hub is not None
        stage.cut([first], stage.others[-1:])
        stage.until(8.0)
        stage.lose_arbiter(first)
        for _ in range(4):
            first.freeze()
            stage.until(stage.scheduler.now + 1.9)
            first.thaw()
            stage.until(stage.scheduler.now + 0.1)

        assert stage.leader is first
        assert not hub.coordinator.job.may_decide(hub.now())


def test_only_the_way_between_two_is_cut_and_each_coordinator_is_left_ten_seconds() -> None:
    for stage in stages(3, RUNS):
        stage.until(5.0)
        stage.cut([stage.chief], [stage.others[-1]])
        stage.until(60.0)

        times = [since for _, _, since in stage.won]
        gaps = [after - before for before, after in pairwise(times)]
        assert len(stage.won) >= 2
        assert all(gap > 9.0 for gap in gaps), stage.won


def test_a_challenge_waits_for_the_arbiter_to_answer_for_ten_seconds() -> None:
    """The coordinator was away from it, too, and is back with the others."""
    for stage in stages(4, 2 * RUNS):
        stage.until(5.0)
        first, others = stage.chief, stage.others
        stage.cut([first, others[0]], others[1:])
        stage.lose_arbiter(first)
        while not stage.cell.record.challenged:
            stage.until(stage.scheduler.now + 0.05)
        stage.cell.sky.outages += 1
        stage.lose_arbiter(first, back=True)
        stage.until(stage.scheduler.now + 20.0)
        stage.cell.sky.outages -= 1
        stage.until(stage.scheduler.now + 8.0)

        assert stage.leader is first, stage.won
        assert not stage.cell.record.challenged
