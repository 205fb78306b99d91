import pytest
from hypothesis import given, strategies as st

from dssync.errors import ScheduleError
from dssync.schedule import Plan, validate
from unit.schedule.averaging import period_product, second_modulus


def plan_of_rounds(n, *rounds, largest_group=8, **stream):
    return Plan("grid", n, largest_group, rounds, flush=(), **stream)


@st.composite
def schedules(draw):
    n = draw(st.integers(1, 7))
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        owners = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
        groups = [tuple(m for m in range(n) if owners[m] == owner) for owner in set(owners)]
        rounds.append(tuple(sorted(groups)))
    return plan_of_rounds(n, *rounds)


@given(schedules())
def test_refuses_exactly_the_schedules_with_a_second_eigenvalue_of_modulus_one(plan):
    mixes = second_modulus(period_product(plan)) < 1 - 1e-9

    try:
        validate(plan)
        accepted = True
    except ScheduleError:
        accepted = False

    assert accepted == mixes


def test_refuses_to_let_half_of_each_rack_cross_at_a_time():
    first = ((0, 1, 4, 5), (2, 3), (6, 7))
    second = ((0, 1), (2, 3, 6, 7), (4, 5))

    with pytest.raises(ScheduleError, match=r"never mixes.*between members 0 and 2"):
        validate(plan_of_rounds(8, first, second))


def test_accepts_crossing_by_a_quarter_of_each_rack():
    rounds = [
        tuple(
            sorted(
                [
                    (turn, 4 + turn),
                    tuple(m for m in range(4) if m != turn),
                    tuple(m for m in range(4, 8) if m - 4 != turn),
                ]
            )
        )
        for turn in range(4)
    ]

    validate(plan_of_rounds(8, *rounds))


@pytest.mark.parametrize(
    "groups",
    [((0, 1), (2,)), ((0, 1), (1, 2, 3)), ((0, 1), (2, 3, 4)), ((0, 1, 2, 3), ())],
    ids=["left out", "twice", "unknown", "empty"],
)
def test_refuses_rounds_that_are_no_partition(groups):
    with pytest.raises(ScheduleError, match="round 1 of the grid schedule is no partition of 4"):
        validate(plan_of_rounds(4, ((0, 1, 2, 3),), groups))


def test_refuses_groups_above_the_cap():
    with pytest.raises(ScheduleError, match=r"group of 4 members \(0, 1, 2, 3\), but the cap is 3"):
        validate(plan_of_rounds(4, ((0, 1, 2, 3),), largest_group=3))


def test_refuses_a_stream_whose_columns_stay_in_their_rows():
    rows = ((0, 1), (2, 3))

    with pytest.raises(ScheduleError, match="never mixes"):
        validate(plan_of_rounds(4, rows, column_rounds=(rows,), fragments=2))
    validate(plan_of_rounds(4, rows, column_rounds=(rows, ((0, 2), (1, 3))), fragments=2))
