"""Flush in which some members only receive.

A member that joined a moment ago, or whose parameters are broken, must not count in the mean but
should end with it. The others flush among themselves, then give it on.
"""

from collections.abc import Collection

from dssync.errors import ScheduleError
from dssync.schedule.modes import plan
from dssync.schedule.plans import Place, Settings, WeightedGroup, WeightedRound


def flush(
    places: tuple[Place, ...], settings: Settings, receivers: frozenset[int] = frozenset()
) -> tuple[WeightedRound, ...]:
    """Compute the weighted rounds that give everybody the mean of all but the receivers.

    Args:
        places: Where each member runs, in the order of the view.
        settings: The user's choice.
        receivers: Positions that contribute weight 0.

    Returns:
        Rounds, each a partition of all positions; positions that idle are groups of their own.

    Raises:
        ScheduleError: All members are receivers, so that there is nothing to receive.
    """
    givers = [position for position in range(len(places)) if position not in receivers]
    if not givers:
        raise ScheduleError(
            f"all {len(places)} members of the view are receivers: a flush needs one that gives"
        )
    inner = plan(tuple(places[position] for position in givers), settings)
    rounds = [_with_idle(_renumbered(weighted, givers), receivers) for weighted in inner.flush]
    holders, waiting = givers, sorted(receivers, key=lambda position: (places[position], position))
    cap = len(places) if settings.mode == "allreduce" else settings.group_size
    while waiting:
        served = _serve(holders, waiting, places, cap)
        rounds.append(_spread_round(served, waiting))
        holders = holders + [position for group in served.values() for position in group]
        waiting = [position for position in waiting if position not in set(holders)]
    return tuple(rounds)


def _renumbered(weighted: WeightedRound, positions: list[int]) -> WeightedRound:
    return tuple(
        WeightedGroup(tuple(positions[member] for member in group.members), group.weights)
        for group in weighted
    )


def _with_idle(weighted: WeightedRound, idle: Collection[int]) -> WeightedRound:
    alone = [WeightedGroup((position,), (1.0,)) for position in idle]
    return tuple(sorted([*weighted, *alone], key=lambda group: group.members))


def _serve(
    holders: list[int], waiting: list[int], places: tuple[Place, ...], cap: int
) -> dict[int, list[int]]:
    """Give each waiting position to the nearest holder with room, the least busy one first."""
    served: dict[int, list[int]] = {holder: [] for holder in holders}
    for position in waiting:
        free = [holder for holder in holders if len(served[holder]) < cap - 1]
        if not free:
            break
        nearest = min(
            free,
            key=lambda holder: (
                _distance(places[holder], places[position]),
                len(served[holder]),
                holder,
            ),
        )
        served[nearest].append(position)
    return served


def _distance(a: Place, b: Place) -> int:
    """Number of path parts below the common ancestor: 0 for one node, 3 for different zones."""
    pairs = [(a.zone, b.zone), (a.rack, b.rack), (a.node, b.node)]
    return next((3 - depth for depth, (mine, theirs) in enumerate(pairs) if mine != theirs), 0)


def _spread_round(served: dict[int, list[int]], waiting: list[int]) -> WeightedRound:
    groups = []
    for holder, receiving in served.items():
        members = tuple(sorted([holder, *receiving]))
        groups.append(WeightedGroup(members, tuple(float(m == holder) for m in members)))
    served_now = {position for receiving in served.values() for position in receiving}
    return _with_idle(tuple(groups), set(waiting) - served_now)
