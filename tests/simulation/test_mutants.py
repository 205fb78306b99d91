"""The simulator catches protocols with one rule broken; if not, its silence means nothing."""

import pytest

from simulation.mutants import MUTANTS
from simulation.run import Protocol, Simulation
from simulation.violation import ViolationError

SEEDS = 300


def caught(protocol: Protocol) -> str:
    """Return the first violation; empty if there is none."""
    for seed in range(SEEDS):
        try:
            Simulation(seed, protocol).run()
        except ViolationError as error:
            return f"seed {seed}: {error}"
    return ""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_that_is_caught(name: str) -> None:
    assert caught(MUTANTS[name]())
