"""What an operation gives to whom, where its members do not agree on what it is."""

import pytest

from simulation.fabric import Fabric, Numbers, Party
from simulation.scheduler import Process, Scheduler
from simulation.violation import ViolationError

PAIR = ("a", "b")


class Sum:
    """One operation of two members."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(0)
        self.fabric = Fabric(self.scheduler)
        self.ends: dict[str, str] = {}

    def start(self, key: str, number: int, weight: float = 0.5, leaderless: bool = False) -> None:
        def done(total: Numbers, support: int) -> None:
            self.ends[key] = "done"

        def failed() -> None:
            self.ends[key] = "failed"

        process = Process(self.scheduler)
        part = Party(process, [weight], weight, 0, done, failed, leaderless)
        self.fabric.start("c", PAIR, (number, 0), key, part)

    def run(self) -> dict[str, str]:
        while self.scheduler.step():
            pass
        return self.ends


@pytest.mark.parametrize("leaderless", [False, True])
def test_members_of_one_round_get_its_sum(leaderless: bool) -> None:
    operation = Sum()

    operation.start("a", 4)
    operation.start("b", 4, leaderless=leaderless)

    assert operation.run() == {"a": "done", "b": "done"}


@pytest.mark.parametrize(("number", "weight"), [(5, 0.5), (4, 0.3)])
def test_nobody_gets_a_sum_of_two_rounds_or_views_while_nobody_leads(
    number: int, weight: float
) -> None:
    operation = Sum()

    operation.start("a", 4)
    operation.start("b", number, weight, leaderless=True)

    assert operation.run() == {"a": "failed", "b": "failed"}


@pytest.mark.parametrize(("number", "weight"), [(5, 0.5), (4, 0.3)])
def test_a_coordinator_assigns_no_two_rounds_or_views_to_one_sum(
    number: int, weight: float
) -> None:
    operation = Sum()
    operation.start("a", 4)

    with pytest.raises(ViolationError, match=r"mates are in|sum to 1"):
        operation.start("b", number, weight)
