"""The modes: which partitions the training rounds cycle through.

All but ``allreduce`` share the tree and the flush of the grid. Partitions are few and fixed per
list of members, because each distinct group costs a communicator.
"""

from dataclasses import replace
from functools import lru_cache
from itertools import chain, count

from dssync.errors import ScheduleError
from dssync.schedule.cross import cross_rounds
from dssync.schedule.grid import flush_rounds, lay_grid
from dssync.schedule.permutation import permutation
from dssync.schedule.plans import (
    Partition,
    Place,
    Plan,
    Settings,
    WeightedGroup,
    largest_group_for,
    singletons,
    sorted_partition,
)
from dssync.schedule.tree import balanced, build_tree
from dssync.schedule.validate import reachable, validate

POOL_PARTITIONS = 4
"""Cycling this many fixed partitions mixes as well as a fresh shuffle in every round."""


@lru_cache(maxsize=256)
def plan(places: tuple[Place, ...], settings: Settings) -> Plan:
    """Compute the schedule of a list of members; no communication, no state, no clock.

    Args:
        places: Where each member runs, in the order of the view; positions index this.
        settings: The user's choice.

    Returns:
        A plan that has passed ``validate``.

    Raises:
        ScheduleError: There are no members.
    """
    if not places:
        raise ScheduleError("a schedule needs at least one member, but the view is empty")
    made = _allreduce(len(places)) if settings.mode == "allreduce" else _grouped(places, settings)
    validate(made)
    return made


def _allreduce(n: int) -> Plan:
    everybody = tuple(range(n))
    flush = ((WeightedGroup(everybody, (1 / n,) * n),),) if n > 1 else ()
    return Plan("allreduce", n, n, ((everybody,),), flush)


def _grouped(places: tuple[Place, ...], settings: Settings) -> Plan:
    grid = lay_grid(build_tree(places, settings.group_size), settings.group_size)
    common = Plan(
        mode="grid",
        size=len(places),
        largest_group=largest_group_for(settings.group_size),
        rounds=grid.partitions(),
        flush=flush_rounds(grid),
    )
    match settings.mode:
        case "pool":
            return replace(common, mode="pool", rounds=_pool(len(places), settings))
        case "cross" if rounds := cross_rounds(places, settings.group_size):
            return replace(common, mode="cross", rounds=rounds)
        case "stream":
            return _stream(common, settings.fragments)
    return common


def _pool(n: int, settings: Settings) -> tuple[Partition, ...]:
    """Draw few seeded partitions into groups as full as possible; again until they connect all."""
    parts = -(-n // settings.group_size)
    if parts == 1:
        return ((tuple(range(n)),),)
    draws = (
        tuple(
            sorted_partition(balanced(permutation(n, settings.seed, "pool", attempt, turn), parts))
            for turn in range(POOL_PARTITIONS)
        )
        for attempt in count()
    )
    return next(drawn for drawn in draws if len(reachable(chain.from_iterable(drawn), 0)) == n)


def _stream(grid: Plan, fragments: int) -> Plan:
    """Average rows in every round, and one fragment at a time on the levels above them.

    A group of a higher level that is a row is left out there: it averages in every round anyway.
    """
    rows, *above = grid.rounds
    alone = singletons(grid.size)
    columns = [
        chain.from_iterable(
            [(member,) for member in group] if group in rows else [group] for group in level
        )
        for level in above
    ]
    return replace(
        grid,
        mode="stream",
        rounds=(rows,),
        column_rounds=tuple(map(sorted_partition, columns)) or (alone,),
        fragments=fragments,
    )
