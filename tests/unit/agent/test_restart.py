"""What follows from a worker's exit."""

import pytest
from hypothesis import given, strategies as st

from dssync.agent.restart import Action, after_exit


@given(st.integers(0, 10), st.integers(0, 10))
def test_code_zero_is_an_end_and_no_failure(restarts: int, limit: int) -> None:
    assert after_exit(0, restarts, limit) is Action.DONE


@pytest.mark.parametrize("returncode", [1, 137, -9, -15])
def test_a_failed_worker_is_restarted_until_its_own_limit(returncode: int) -> None:
    actions = [after_exit(returncode, restarts, 2) for restarts in range(4)]

    assert actions == [Action.RESTART, Action.RESTART, Action.GIVE_UP, Action.GIVE_UP]


@given(st.integers(0, 10))
def test_a_worker_whose_device_hangs_is_always_started_anew(restarts: int) -> None:
    assert after_exit(95, restarts, 0) is Action.RESTART


def test_a_worker_that_forbids_it_is_not_restarted() -> None:
    assert after_exit(93, 0, 5) is Action.GIVE_UP


@pytest.mark.parametrize(
    ("returncode", "action"),
    [(7, Action.RESTART), (-9, Action.RESTART), (8, Action.GIVE_UP), (95, Action.RESTART)],
)
def test_only_certain_codes_are_restarted_where_they_are_named(
    returncode: int, action: Action
) -> None:
    assert after_exit(returncode, 0, 2, frozenset({7, 137})) is action
