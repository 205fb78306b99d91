"""What a launcher learns from the tags of messages that it passes on."""

from typing import cast

import pytest

from dssync.agent.awake import HOST_PAUSE_SECONDS, AwakeClock
from dssync.agent.crew import Worker
from dssync.agent.link import WorkerLink
from dssync.agent.supervisor import WorkerProcess
from dssync.control import messages as m
from dssync.control.events import ControlSettings


class Clock:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Passed:
    """Stands for the link's socket: what went to the worker."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def control(self, body: str) -> None:
        self.bodies.append(body)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(clock: Clock) -> Worker:
    process = cast(WorkerProcess, None)  # never asked
    return Worker(process, cast(WorkerLink, Passed()), "0.0.ab", clock=clock)


def said(message: m.FromMemberBody) -> str:
    return m.MEMBER.encode(message).decode()


def told(message: m.ToMemberBody) -> str:
    return m.TO_MEMBER.encode(message).decode()


ENTER = m.Enter((), m.SyncSettings("grid", 4, 1, "relaxed", 0), "")


def test_a_worker_is_silent_since_it_was_benched(worker: Worker, clock: Clock) -> None:
    worker.says(said(ENTER))
    clock.seconds += 50
    worker.is_told(told(m.Bench("late")))
    clock.seconds += 7

    assert worker.benched
    assert worker.silent_seconds == 7


def test_a_late_word_is_a_sign_of_life_but_no_return(worker: Worker, clock: Clock) -> None:
    worker.is_told(told(m.Bench("late")))
    clock.seconds += 7

    worker.says(said(m.Take(2, 0)))

    assert worker.benched
    assert worker.silent_seconds == 0


def test_a_benched_worker_that_enters_is_back(worker: Worker) -> None:
    worker.is_told(told(m.Bench("late")))

    worker.says(said(ENTER))

    assert worker.entered
    assert not worker.benched


def test_the_time_between_rounds_leaves_out_absences(worker: Worker, clock: Clock) -> None:
    for seconds, message in ((1, m.Applied(4, 0, ())), (3, m.Applied(5, 0, ()))):
        clock.seconds += seconds
        worker.says(said(message))
    between = worker.round_seconds
    clock.seconds += 500
    worker.says(said(ENTER))
    worker.says(said(m.Applied(90, 0, ())))

    assert between == 3
    assert worker.round_seconds == 3
    assert worker.progress == m.Progress("0.0.ab", 90, 0)


def test_admission_is_seen_from_outside(worker: Worker) -> None:
    before = worker.admitted

    worker.is_told(told(m.Start(3, 0, True)))

    assert not before
    assert worker.admitted
    assert cast(Passed, worker.link).bodies == [told(m.Start(3, 0, True))]


def test_a_worker_knows_the_end_once_it_was_told_in_its_present_life(worker: Worker) -> None:
    states = [worker.done]
    worker.is_told(told(m.Completed(0)))
    states.append(worker.done)
    worker.is_told(told(m.LastRound(4)))
    states.append(worker.done)
    worker.says(said(ENTER))
    states.append(worker.done)

    assert states == [False, True, True, False]


def test_time_stands_still_while_the_process_is_stopped(clock: Clock) -> None:
    awake = AwakeClock(clock)
    for _ in range(10):
        clock.seconds += 0.02
        awake.now()
    running = awake.now()

    clock.seconds += 3600

    assert running == pytest.approx(100.2)
    assert awake.now() == pytest.approx(running)
    clock.seconds += 0.1
    assert awake.now() == pytest.approx(running + 0.1)


def test_a_coordinator_that_stops_for_a_moment_gives_up_nobody_who_waits_at_its_door(
    clock: Clock,
) -> None:
    awake = AwakeClock(clock, HOST_PAUSE_SECONDS)
    before = awake.now()

    clock.seconds += ControlSettings(desired=1, minimum=1).reconnect_seconds

    assert awake.now() == pytest.approx(before)
