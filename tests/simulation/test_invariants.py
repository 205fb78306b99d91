"""What invariants forgive, they forgive for a fault: without one they raise."""

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.events import Effect
from dssync.control.provisional import CAUSE
from simulation.assignments import Assignments
from simulation.monitor import Monitor
from simulation.run import Simulation
from simulation.values import Values
from simulation.violation import ViolationError
from unit.control.job import JobOnPaper

NEAR, MATE, FAR = (f"{slot}.0.{slot:032x}" for slot in range(3))
GROUPS = {4: (MATE, FAR), 5: (NEAR, MATE), 6: (NEAR, MATE), 7: (NEAR, FAR)}


@pytest.fixture
def assignments() -> Assignments:
    """The mate of a round is still in the one below, with a third; the next has the same group."""
    made = Assignments(Simulation(0).observer, 1)
    made.eligible |= {NEAR, MATE, FAR}
    for number in GROUPS:
        freeze(made, number)
    return made


def freeze(assignments: Assignments, number: int, attempt: int = 0) -> None:
    group = GROUPS[number]
    assign = m.Assign(
        round=number,
        attempt=attempt,
        kind="train",
        strict=True,
        stages=(m.Stage(f"{' '.join(group)} {attempt}", group, 1 / len(group)),),
        retire=(),
        world_size=3,
        view=1,
        first=NEAR,
        cause="failed" if attempt else "",
        weighted=True,
        progress=0.0,
    )
    for key in group:
        assignments.assigned(key, assign)
    assignments.check([(key, assign) for key in group], group)


def test_a_retry_after_a_timeout_is_forgiven_while_a_fault_holds_a_mate_up(
    assignments: Assignments,
) -> None:
    assignments._observer.touched.hold([FAR])

    assignments.timed_out(NEAR, 5, 0, holds=False)

    freeze(assignments, 5, attempt=1)


def test_it_is_forgiven_while_the_mate_waits_for_a_decision_that_waits_for_a_look(
    assignments: Assignments,
) -> None:
    assignments.timed_out(NEAR, 5, 0, holds=True)

    freeze(assignments, 5, attempt=1)


def test_it_is_forgiven_in_a_higher_round_that_uses_the_same_communicator(
    assignments: Assignments,
) -> None:
    assignments.timed_out(NEAR, 5, 0, holds=True)

    freeze(assignments, 6, attempt=1)


def test_it_is_not_forgiven_in_a_higher_round_on_another_communicator(
    assignments: Assignments,
) -> None:
    assignments.timed_out(NEAR, 5, 0, holds=True)

    with pytest.raises(ViolationError, match="though no fault hit"):
        freeze(assignments, 7, attempt=1)


def test_a_retry_is_forgiven_after_addresses_came_late_by_way_of_a_coordinator_that_was_hit(
    assignments: Assignments,
) -> None:
    assignments.not_built(NEAR, 5, 0)

    freeze(assignments, 5, attempt=1)


def test_it_is_not_forgiven_while_no_fault_holds_anybody_up(assignments: Assignments) -> None:
    assignments.timed_out(NEAR, 5, 0, holds=False)

    with pytest.raises(ViolationError, match="though no fault hit"):
        freeze(assignments, 5, attempt=1)


def test_it_is_not_forgiven_once_the_mate_has_left_the_lower_round(
    assignments: Assignments,
) -> None:
    assignments._observer.touched.hold([FAR])
    assignments.committed(MATE, 4)

    assignments.timed_out(NEAR, 5, 0, holds=True)

    with pytest.raises(ViolationError, match="though no fault hit"):
        freeze(assignments, 5, attempt=1)


def test_who_has_not_applied_what_a_mate_has_misses_it(assignments: Assignments) -> None:
    for number in GROUPS:
        assignments.applied_at_members[MATE, number] = 0

    assert assignments.missed(FAR, MATE) == {(4, 0)}
    assert assignments.missed(NEAR, MATE) == {(5, 0), (6, 0)}


def test_who_did_a_provisional_round_has_not_applied_the_flush_of_its_number(
    assignments: Assignments,
) -> None:
    """It had not heard of the flush when the coordinator was lost."""
    values = Values(assignments)
    assign = replace(assignments.of(MATE, 4, 0), strict=False, stages=(), cause=CAUSE)
    values.begun(MATE, assign, [1.0])

    values.applied(MATE, assign, [1.0])

    assert assignments.missed(FAR, MATE) == set()


def test_a_retry_with_a_mate_that_has_applied_the_round_is_not_forgiven(
    assignments: Assignments,
) -> None:
    assignments._observer.touched.hold([MATE])
    assignments.applied_at_members[MATE, 5] = 0

    with pytest.raises(ViolationError, match="who applied it"):
        freeze(assignments, 5, attempt=1)


def test_it_is_forgiven_with_a_mate_that_has_done_the_round_while_nobody_led(
    assignments: Assignments,
) -> None:
    assignments._observer.touched.hold([MATE])
    assignments.applied_at_members[MATE, 5] = -1

    freeze(assignments, 5, attempt=1)


def test_who_began_anew_misses_nothing_of_before_and_all_since(assignments: Assignments) -> None:
    for number in GROUPS:
        assignments.applied_at_members[MATE, number] = 0

    for key in (NEAR, FAR):
        assignments.started(key, 5)

    assert assignments.missed(FAR, MATE) == set()
    assert assignments.missed(NEAR, MATE) == {(5, 0), (6, 0)}


class WatchedJob(JobOnPaper):
    """A coordinator whose effects a monitor looks at."""

    def __init__(self) -> None:
        super().__init__()
        self._monitor = Monitor(self.coordinator, Simulation(0).observer, is_strict=False)

    def _take(self, effects: Iterable[Effect]) -> None:
        listed = list(effects)
        self._monitor.after(listed)
        super()._take(listed)


def test_who_asked_in_vain_and_began_anew_waits_for_nothing() -> None:
    """It was the last one: the data count anew, and it has not asked again yet."""
    job = WatchedJob()
    job.begin(NEAR)
    job.says(NEAR, m.Register((m.Track("", 1),), 1), m.Take(2, 0), m.Take(2, 0), m.Leave("nan"))

    job.enters(NEAR)

    assert job.coordinator.ledger.available == 1


def test_who_asked_in_vain_waits_for_what_comes_back() -> None:
    job = WatchedJob()
    job.begin(NEAR)
    job.says(NEAR, m.Register((m.Track("", 1),), 1), m.Take(2, 0), m.Take(2, 0))
    job.coordinator.ledger.release(NEAR)
    job.coordinator.ledger.fresh_holes = False

    with pytest.raises(ViolationError, match="not offered"):
        job.says(NEAR, m.Blob("c", NEAR, ""))
