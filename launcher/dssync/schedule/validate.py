"""Refusal of schedules whose rounds would never mix all members.

Averaging inside the groups of a partition is an orthogonal projection onto the vectors that are
constant on each group. A product of such projections keeps the length of a vector only if every
one of them leaves it as it is; so an eigenvalue of modulus 1 of the period's product belongs to a
vector that is constant on every group of every round. These are multiples of (1, …, 1), and the
second eigenvalue's modulus is below 1, **if and only if the union of the groups of a period
connects all members**. That needs no linear algebra, and it catches the trap of schedules
that look shuffled, such as crossing between racks one half of each rack at a time.
"""

from collections.abc import Iterable

from dssync.errors import ScheduleError
from dssync.schedule.plans import Partition, Plan


def validate(plan: Plan) -> None:
    """Check that each round is a partition within the cap and that the period mixes.

    Raises:
        ScheduleError: A round leaves out or repeats a member or has too large a group, or some
            members would never hear of others.
    """
    for round_number in range(plan.period):
        for partition in (plan.groups(round_number), plan.columns(round_number)):
            if partition:
                _check_partition(partition, plan, round_number)
    _check_mixing(plan)


def reachable(groups: Iterable[tuple[int, ...]], start: int) -> set[int]:
    """Positions that information from one position reaches through groups, in any order."""
    mates: dict[int, list[tuple[int, ...]]] = {}
    for group in set(groups):
        for member in group:
            mates.setdefault(member, []).append(group)
    found, frontier = {start}, [start]
    while frontier:
        position = frontier.pop()
        new = {mate for group in mates.pop(position, []) for mate in group} - found
        found |= new
        frontier += new
    return found


def _check_partition(partition: Partition, plan: Plan, round_number: int) -> None:
    members = sorted(member for group in partition for member in group)
    if members != list(range(plan.size)) or () in partition:
        raise ScheduleError(
            f"round {round_number} of the {plan.mode} schedule is no partition of {plan.size} "
            f"members: its groups are {partition}; each member must be in exactly one group"
        )
    largest = max(partition, key=len)
    if len(largest) > plan.largest_group:
        raise ScheduleError(
            f"round {round_number} of the {plan.mode} schedule has a group of {len(largest)} "
            f"members {largest}, but the cap is {plan.largest_group}"
        )


def _check_mixing(plan: Plan) -> None:
    # Each fragment of a stream passes through every column round, so one check holds for all.
    period = range(plan.period)
    found = reachable((group for r in period for group in plan.groups(r) + plan.columns(r)), 0)
    if len(found) < plan.size:
        apart = min(set(range(plan.size)) - found)
        raise ScheduleError(
            f"the {plan.mode} schedule of {plan.size} members never mixes: in no round of its "
            f"period does anything pass between members 0 and {apart}, so the "
            f"{len(found)} members around 0 would train a model of their own; use mode grid"
        )
