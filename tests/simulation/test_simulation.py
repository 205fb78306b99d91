"""The real coordinator and the real members under seeded faults: every invariant, every seed.

A failing seed is replayed with ``PYTHONPATH=tests python -m simulation --seed N --trace``.
"""

import pytest

from simulation.run import Simulation

CHUNK = 25
CHUNKS = 8


@pytest.mark.parametrize("first", range(0, CHUNKS * CHUNK, CHUNK))
def test_every_invariant_holds_whatever_fails(first: int) -> None:
    for seed in range(first, first + CHUNK):
        outcome = Simulation(seed).run()

        assert outcome.members >= 8, seed
        assert outcome.events >= 500, seed
        assert outcome.faults >= 3, seed


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_every_invariant_holds_when_coordinators_are_lost(first: int) -> None:
    for seed in range(first, first + 10):
        Simulation(seed, takeovers=True).run()


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_replays_to_the_same_trace(seed: int) -> None:
    first, second = [], []

    Simulation(seed, trace=first.append).run()
    Simulation(seed, trace=second.append).run()

    assert first == second
    assert len(first) >= 500


def test_different_seeds_give_different_traces() -> None:
    assert len({Simulation(seed).run().digest for seed in range(10)}) == 10
