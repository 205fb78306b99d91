"""The simulator catches protocols with one rule broken; if not, its silence means nothing."""

import pytest

from simulation.mutants import MUTANTS, first_catch


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_that_is_caught(name: str) -> None:
    seed, error = first_catch(name, MUTANTS[name].seed)

    assert seed is not None, error
