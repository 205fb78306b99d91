"""What a kill has cost and may cost, when each life counts its rounds from 0."""

from dataclasses import replace

import pytest

from benchmarks.resume.lives import Life, life_of, lost_by, may_lose
from dssync.control.messages import Assign
from dssync.control.viewlog import Applied, Attempt, Entered, Saved

OWN, MATE = "0.0.aa", "0.1.bb"


def attempt(number: int, kind: str) -> Attempt:
    assign = Assign(number, 0, kind, True, (), (), 2, 1, OWN, "", True, 0.5, 1)
    return Attempt(OWN, 1, False, "", assign, ())


def test_a_log_tells_what_was_flushed_and_how_far_the_job_was_when_it_was_published() -> None:
    life = life_of(
        [
            Entered(OWN, 0, "checkpoint:/saved/checkpoint-000001", None, 0, ()),
            Entered(MATE, 0, OWN, None, 0, ()),
            attempt(0, "train"),
            Applied(OWN, 0, 0),
            attempt(1, "flush"),
            Applied(OWN, 1, 0),
            Applied(MATE, 2, 0),
            Saved(OWN, 1, "/saved/checkpoint-000002"),
            Applied(OWN, 2, 0),
            attempt(3, "flush"),
        ]
    )

    assert life == Life(last=2, resumed=True, flushes=(1,), published={1: 2})
    assert life.slowest_save == 1


LIFE = Life(last=30, resumed=True, flushes=(12, 24), published={12: 15, 24: 26})
TORN = Life(last=30, resumed=True, flushes=(12, 24), published={12: 15})
SLOW = Life(last=70, resumed=True, flushes=(12, 40), published={12: 35})
FIRST = Life(last=16, resumed=False, flushes=(13,), published={})


@pytest.mark.parametrize(
    ("life", "kept", "lost", "allowed"),
    [
        pytest.param(LIFE, 24, 6, 14, id="an interval and the rounds until a flush"),
        pytest.param(TORN, 12, 18, 14 + 6, id="and those of the save that was torn"),
        pytest.param(SLOW, 12, 58, 40 + 30, id="and a save before that is longer than an interval"),
        pytest.param(FIRST, -1, 17, 14 + 3, id="and nothing else where nothing was saved"),
    ],
)
def test_a_life_may_lose_one_interval_and_one_save(
    life: Life, kept: int, lost: int, allowed: int
) -> None:
    assert lost_by(life, kept) == lost
    assert may_lose(life, kept) == allowed


@pytest.mark.parametrize(
    ("life", "kept"),
    [
        pytest.param(LIFE, 12, id="a checkpoint that was published is gone"),
        pytest.param(replace(TORN, last=40, flushes=(12, 24, 36)), 12, id="a flush was not saved"),
        pytest.param(replace(TORN, flushes=(12,)), 12, id="nothing was saved for too long"),
    ],
)
def test_a_life_loses_more_than_it_may(life: Life, kept: int) -> None:
    assert lost_by(life, kept) > may_lose(life, kept)
