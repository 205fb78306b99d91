"""The real coordinator, elections and members under seeded faults: every invariant, every seed.

A failing seed is replayed with ``PYTHONPATH=tests python -m simulation --seed N --trace``.
"""

import gc
import os
import subprocess
import sys

import pytest

from simulation.__main__ import report, shrink
from simulation.coverage import MEMBER_EVENTS, Coverage
from simulation.mutants import MUTANTS
from simulation.profile import (
    ASKS,
    LEADERS,
    LONG,
    MEMBERS,
    MIXED,
    OUTAGES,
    PARTITIONS,
    TANGLES,
    Profile,
)
from simulation.run import Outcome, Simulation
from simulation.violation import ViolationError

CHUNK = 20


@pytest.mark.parametrize(
    ("profile", "first"),
    [(MIXED, first) for first in range(0, 80, CHUNK)]
    + [(PARTITIONS, 0), (OUTAGES, 0), (TANGLES, 0), (ASKS, 0), (LONG, 0)],
    ids=lambda each: getattr(each, "name", each),
)
def test_every_invariant_holds_whatever_fails(profile: Profile, first: int) -> None:
    for seed in range(first, first + CHUNK):
        outcome = Simulation(seed, profile=profile).run()

        assert not outcome.lacks, seed
    gc.collect()


@pytest.mark.parametrize(
    "seed",
    [
        *(291, 341, 569, 622, 1234, 1411, 1728, 1963, 2492, 4096, 4719, 5476, 6008, 6128, 6456),
        *(2339, 6338, 6596, 6857, 7049, 7110, 8488, 8780),
    ],
)
def test_a_seed_that_failed_once_passes(seed: int) -> None:
    Simulation(seed).run()


@pytest.mark.parametrize(
    ("profile", "seed"),
    [(LEADERS, 118), (LEADERS, 535), (MEMBERS, 886)] + [(PARTITIONS, s) for s in (44, 151, 247)],
)
def test_a_seed_of_another_profile_that_failed_once_passes(profile: Profile, seed: int) -> None:
    Simulation(seed, profile=profile).run()


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_replays_to_the_same_trace(seed: int) -> None:
    first, second = [], []

    Simulation(seed, trace=first.append).run()
    Simulation(seed, trace=second.append).run()

    assert first == second
    assert len(first) >= 300


def test_a_seed_replays_to_the_same_trace_in_another_process() -> None:
    """What follows from the order of a set differs there."""
    first, second = (_digests(hash_seed) for hash_seed in ("1", "2"))

    assert first == second


def _digests(hash_seed: str) -> str:
    script = (
        "from simulation.run import Simulation\n"
        "from simulation.profile import PARTITIONS\n"
        "print(*(Simulation(seed, profile=PARTITIONS).run().digest for seed in range(6)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True)
    return ran.stdout.decode()


def test_different_seeds_give_different_traces() -> None:
    assert len({Simulation(seed).run().digest for seed in range(10)}) == 10


def test_a_failing_seed_shrinks_to_faults_with_which_it_still_fails() -> None:
    mutant = MUTANTS["gives joiners weight"]

    omitted = shrink(0, mutant.profile, mutant.protocol())

    assert omitted
    with pytest.raises(ViolationError):
        Simulation(0, mutant.protocol(), profile=mutant.profile, omitted=omitted).run()


def test_members_say_everything_that_the_protocol_has_for_them() -> None:
    coverage = Coverage()

    for seed in range(16):
        simulation = Simulation(seed, profile=ASKS)
        simulation.run()
        coverage.merge(simulation.coverage)

    assert {said for _, said in coverage.phases} >= set(MEMBER_EVENTS)


def outcome(seed: int, members: int = 8, events: int = 500, faults: int = 3) -> Outcome:
    return Outcome(seed, events, faults, members, 1, 60.0, 100, "00000000")


def test_seeds_pass_that_have_enough_of_everything() -> None:
    assert report([outcome(1), outcome(2)], 0, 1.0)


@pytest.mark.parametrize("few", [{"members": 7}, {"events": 499}, {"faults": 2}])
def test_a_seed_with_too_few_members_events_or_faults_fails_and_is_named(
    few: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    passed = report([outcome(1), outcome(2, **few)], 0, 1.0)

    assert not passed
    (what, count), *_ = few.items()
    assert f"seed 2 SHOWS TOO LITTLE: {count} {what} of {count + 1}" in capsys.readouterr().out
