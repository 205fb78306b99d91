"""Splits that seeds hardly draw: two at a time, or the arbiter away for one side of one.

Besides the invariants of every run, which each of these checks after each event.
"""

from itertools import pairwise

from simulation.stage import stages

RUNS = 4


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
