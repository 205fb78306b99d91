"""What a fault forgives ends with its consequences."""

import pytest

from simulation.marks import AFTER_SECONDS, Marks
from simulation.stage import Stage
from simulation.steps import Slowness


class Clock:
    """Says what a test tells it to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def marks(clock: Clock) -> Marks:
    return Marks(clock)


def test_nobody_is_marked_whom_no_fault_has_hit(marks: Marks) -> None:
    marks.hit(["a"])

    assert "b" not in marks


def test_a_fault_that_is_over_at_once_forgives_for_some_time(marks: Marks, clock: Clock) -> None:
    marks.hit(["a"])

    clock.now += AFTER_SECONDS
    assert "a" in marks
    clock.now += 0.1
    assert "a" not in marks


def test_a_fault_that_lasts_forgives_until_some_time_after_its_end(
    marks: Marks, clock: Clock
) -> None:
    end = marks.hold(["a"])

    clock.now += 10 * AFTER_SECONDS
    assert "a" in marks
    end()
    clock.now += AFTER_SECONDS
    assert "a" in marks
    clock.now += 0.1
    assert "a" not in marks


def test_the_end_of_one_fault_ends_no_other(marks: Marks, clock: Clock) -> None:
    first, second = marks.hold(["a"]), marks.hold(["a"])

    first()
    clock.now += 2 * AFTER_SECONDS

    assert "a" in marks
    second()
    clock.now += 2 * AFTER_SECONDS
    assert "a" not in marks


def test_a_fault_that_hits_everybody_hits_who_comes_meanwhile(marks: Marks) -> None:
    first, second = marks.hold_general(), marks.hold_general()

    first()
    assert "newcomer" in marks

    second()
    assert "newcomer" not in marks


def test_who_is_lost_is_marked_for_ever_whatever_hits_it_then(marks: Marks, clock: Clock) -> None:
    marks.lose(["a"])
    marks.hit(["a"])

    clock.now += 100 * AFTER_SECONDS

    assert "a" in marks


def test_a_member_is_marked_with_its_launcher(marks: Marks, clock: Clock) -> None:
    marks.homes["a.0"] = "a"

    end = marks.hold(["a"])

    assert "a.0" in marks
    end()
    clock.now += 2 * AFTER_SECONDS
    assert "a.0" not in marks


def test_a_fault_before_a_moment_has_not_hit_since(marks: Marks, clock: Clock) -> None:
    marks.hit(["a"])

    assert marks.is_hit_since("a", clock.now)
    assert not marks.is_hit_since("a", clock.now + 0.1)


def test_a_straggler_straggles_to_the_end_of_the_step_that_is_longer() -> None:
    ends: list[str] = []
    slow = Slowness()
    slow.straggle(4.0, lambda: ends.append("over"))

    slow.stepped()  # One that had begun before.
    assert ends == []
    slow.extra_seconds = 0.0  # The next one has begun.
    slow.stepped()
    slow.stepped()

    assert ends == ["over"]


def test_a_launcher_that_was_cut_off_is_as_bound_as_others_long_after() -> None:
    stage = Stage(5)
    stage.until(3.0)
    pod, touched = stage.others[0], stage.observer.touched
    (key, *_) = (worker.key for worker in pod.workers)

    stage.faults.cut_off(pod, 1.0)

    stage.until(4.0 + AFTER_SECONDS - 0.1)
    assert key in touched
    assert pod.uid in stage.observer.hit
    stage.until(4.0 + AFTER_SECONDS + 0.1)
    assert key not in touched
    assert pod.uid not in stage.observer.hit
