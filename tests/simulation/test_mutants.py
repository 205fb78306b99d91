"""The simulator catches protocols with one rule broken; if not, its silence means nothing."""

import pytest

from dssync.control.coordinator import Coordinator
from dssync.control.events import Effect, Event, Ticked
from simulation.mutants import MUTANTS, Mutant, first_catch
from simulation.run import Protocol


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_that_is_caught(name: str) -> None:
    seed, error = first_catch(MUTANTS[name], MUTANTS[name].seed)

    assert seed is not None, error


class Crashes(Coordinator):
    """Breaks no rule before it ends with an error of its own."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Ticked) and now > 1.0:
            raise AttributeError("nothing has this name")
        return super().handle(event, now)


def test_a_protocol_that_crashes_is_not_caught() -> None:
    mutant = Mutant(lambda: Protocol(coordinator=Crashes))

    seed, error = first_catch(mutant, 0, most=2)

    assert seed is None
    assert error == "not caught by 2 seeds, of which 2 crash"
