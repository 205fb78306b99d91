"""What the control benchmark concludes from what its members have seen."""

import pytest

from benchmarks.control.__main__ import Case, bars, figures
from benchmarks.control.alone import measure


def case(members: int, **changes: object) -> Case:
    values: dict[str, object] = {
        "waits_milliseconds": [1.0] * 99 + [9.0],
        "sent_late_milliseconds": [0.1],
        "read_late_milliseconds": [0.1],
        "assigned_per_second": 2000.0,
        "bytes_per_round": 400.0,
        "processor_microseconds": 100.0,
    }
    return Case(members=members, **(values | changes))  # type: ignore[arg-type]


def test_all_promises_hold_where_a_round_costs_the_same_for_many_members() -> None:
    found = bars([case(100), case(1000)], 2000.0)

    assert [bar.holds for bar in found] == [True] * 4
    assert found[2].name == "cost of a round, 1000 / 100 members"


@pytest.mark.parametrize(
    ("broken", "changes"),
    [
        (0, {"assigned_per_second": 1900.0}),
        (1, {"waits_milliseconds": [1.0] * 97 + [11.0] * 3}),
        (2, {"processor_microseconds": 130.0}),
        (3, {"bytes_per_round": 500.0}),
    ],
)
def test_a_promise_that_is_broken_at_the_largest_size_is_told(
    broken: int, changes: dict[str, object]
) -> None:
    found = bars([case(100), case(1000, **changes)], 2000.0)

    assert [bar.holds for bar in found] == [number != broken for number in range(4)]


def test_each_size_has_its_figures() -> None:
    metrics = [(each.case, each.metric) for each in figures(case(250))]

    assert metrics == [
        ("250 members", "wait for assignment and lease"),
        ("250 members", "sent after its appointed time"),
        ("250 members", "read after its arrival"),
        ("250 members", "assignments"),
        ("250 members", "replies per member and round"),
        ("250 members", "processor time per member and round"),
    ]


async def test_the_coordinator_alone_is_measured_by_what_it_does() -> None:
    used = await measure(8, seconds=0.2)

    assert used.keys() >= {"heartbeat", "message", "tick"}
    assert all(each > 0 for each in used.values())
