"""Mode ``cross``: one member of each rack meets those of other racks, the rest stay at home.

After DS-Sync version 2 (INFOCOM 2022), whose groups have different sizes so that few rings share
an uplink at a time. The crossing role rotates through each rack. One at a time: letting half of a
rack cross would split the job into two halves that never meet, and the more cross, the busier the
uplink; so racks of fewer than four have no place here.
"""

from itertools import groupby

from dssync.schedule.grid import lay_grid
from dssync.schedule.plans import Partition, Place, sorted_partition
from dssync.schedule.tree import build_tree, flat_tree

SMALLEST_RACK = 4


def cross_rounds(places: tuple[Place, ...], group_size: int) -> tuple[Partition, ...]:
    """Compute the rounds, as many as the largest rack has members (or racks have levels).

    Racks, or racks in number, beyond the group size are cut like rows of the grid and take its
    levels in turn.

    Returns:
        Partitions of all positions; none where there are fewer than two racks or one has fewer
        than four members.
    """
    racks = _racks(places)
    if len(racks) < 2 or min(map(len, racks)) < SMALLEST_RACK:
        return ()
    meetings = lay_grid(
        build_tree([places[rack[0]] for rack in racks], group_size), group_size
    ).partitions()
    homes = [lay_grid(flat_tree(rack, group_size), group_size).partitions() for rack in racks]
    period = max(len(meetings), *map(len, racks))
    return tuple(
        _cross_round(
            [rack[turn * len(rack) // period] for rack in racks],
            meetings[turn % len(meetings)],
            [home[turn % len(home)] for home in homes],
        )
        for turn in range(period)
    )


def _racks(places: tuple[Place, ...]) -> list[tuple[int, ...]]:
    positions = sorted(range(len(places)), key=lambda position: places[position].rack_path)
    by_rack = groupby(positions, key=lambda position: places[position].rack_path)
    return [tuple(rack) for _, rack in by_rack]


def _cross_round(crossing: list[int], meeting: Partition, homes: list[Partition]) -> Partition:
    away = set(crossing)
    groups = [[crossing[rack] for rack in racks] for racks in meeting]
    at_home = [
        [member for member in group if member not in away] for home in homes for group in home
    ]
    return sorted_partition(groups + [group for group in at_home if group])
