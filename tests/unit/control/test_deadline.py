"""The limit follows the rounds: generous at first, then a multiple of what is usual."""

from statistics import median

import pytest
from hypothesis import given, strategies as st

from dssync.control.deadline import DeadlineSettings, RoundDeadline

SECONDS = st.floats(min_value=0.0, max_value=100.0)


def test_first_rounds_get_the_flat_allowance_whatever_was_measured() -> None:
    deadline = RoundDeadline(DeadlineSettings(warmup_rounds=10, warmup_seconds=20.0))
    for _ in range(16):
        deadline.observe(0.1)

    assert [deadline.limit_seconds(number) for number in (0, 9, 10)] == [20.0, 20.0, 1.0]


def test_until_eight_groups_were_measured_the_allowance_stays() -> None:
    deadline = RoundDeadline(DeadlineSettings(warmup_seconds=20.0))
    for _ in range(7):
        deadline.observe(0.1)

    assert deadline.limit_seconds(100) == 20.0
    deadline.observe(0.1)
    assert deadline.limit_seconds(100) == 1.0


@given(st.lists(SECONDS, min_size=8, max_size=8))
def test_the_limit_is_at_least_three_medians_and_the_floor(seconds: list[float]) -> None:
    deadline = RoundDeadline(DeadlineSettings())
    for each in seconds:
        deadline.observe(each)

    middle = median(seconds)
    spread = median(abs(each - middle) for each in seconds)
    assert deadline.limit_seconds(10) == max(1.0, 3 * middle, middle + 8 * spread)


def test_one_slow_round_in_many_does_not_raise_the_limit() -> None:
    deadline = RoundDeadline(DeadlineSettings())
    for each in (2.0,) * 15 + (60.0,):
        deadline.observe(each)

    assert deadline.limit_seconds(10) == 6.0


@pytest.mark.parametrize("window", [8, 16])
def test_rounds_beyond_the_window_are_forgotten(window: int) -> None:
    deadline = RoundDeadline(DeadlineSettings(window=window))
    for each in (50.0,) * 64 + (2.0,) * window:
        deadline.observe(each)

    assert deadline.limit_seconds(10) == 6.0
