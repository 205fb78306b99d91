"""The tree over zones, racks and rows that the grid is laid on.

A leaf is a row: at most ``group_size`` members that average directly. An inner node has at most
``group_size`` children, whose members meet in columns. Racks and zones are subtrees of their own,
so that rows do not leave a rack; members without a known rack form one flat row that is cut as
the network allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TypeVar

from dssync.schedule.plans import Place, largest_group_for

T = TypeVar("T")


@dataclass(frozen=True)
class Tree:
    """A row of positions, or an inner node with children; never both."""

    row: tuple[int, ...] = ()
    children: tuple["Tree", ...] = ()


def build_tree(places: Sequence[Place], group_size: int) -> Tree:
    """Arrange positions by zone and rack.

    Members of a rack keep the order of their positions, so a caller that lists the members of a
    node next to each other gets rows that stay on a node where their sizes fit.
    """
    positions = sorted(range(len(places)), key=lambda position: places[position].rack_path)
    zones = []
    for _, in_zone in groupby(positions, key=lambda position: places[position].zone):
        racks = groupby(in_zone, key=lambda position: places[position].rack)
        zones.append(_joined([flat_tree(tuple(rack), group_size) for _, rack in racks], group_size))
    return _joined(zones, group_size)


def flat_tree(positions: tuple[int, ...], group_size: int) -> Tree:
    """Cut a list of members without inner topology into balanced parts, recursively."""
    parts = _shape(len(positions), group_size).parts
    if parts == 1:
        return Tree(row=positions)
    return Tree(
        children=tuple(flat_tree(tuple(part), group_size) for part in balanced(positions, parts))
    )


def balanced(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Cut a list into consecutive parts whose sizes differ by at most one, longer ones first."""
    quotient, longer = divmod(len(items), parts)
    starts = [part * quotient + min(part, longer) for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(starts)]


def _joined(trees: list[Tree], group_size: int) -> Tree:
    """Put subtrees under one node, with further nodes between where they are too many."""
    if len(trees) == 1:
        return trees[0]
    if all(len(tree.row) == 1 for tree in trees):
        # Rows of one would spend a round on nothing, so lone members are laid out as a flat row.
        return flat_tree(tuple(tree.row[0] for tree in trees), group_size)
    while len(trees) > group_size:
        blocks = balanced(trees, -(-len(trees) // group_size))
        trees = [block[0] if len(block) == 1 else Tree(children=tuple(block)) for block in blocks]
    return Tree(children=tuple(trees))


@dataclass(frozen=True, order=True)
class _Shape:
    """Cost of a balanced flat tree; the order of the fields is the order of preference.

    Attributes:
        flush_rounds: Rounds of its flush.
        inexact: Whether equal weights miss the exact mean after one period.
        levels: Number of levels, hence of communicators of a member.
        largest: Largest group.
        parts: Children of its root; 1 for a row.
        holders: Members that hold the mean after the last level.
    """

    flush_rounds: int
    inexact: bool
    levels: int
    largest: int
    parts: int
    holders: int


@cache
def _shape(n: int, group_size: int) -> _Shape:
    """Find the best balanced flat tree of n members by trying every number of parts."""
    if n <= group_size:
        return _Shape(1, False, 1, n, 1, n)
    parts = range(2, group_size + 1)
    return min(_divided(n, count, group_size) for count in parts if count <= n)


def _divided(n: int, parts: int, group_size: int) -> _Shape:
    """Cost of cutting n members into parts; mirrors how ``grid._columns`` builds columns."""
    sizes = {n // parts, -(-n // parts)}
    children = [_shape(size, group_size) for size in sizes]
    levels = 1 + max(child.levels for child in children)
    complete = min(child.holders for child in children)
    leftovers = n - parts * complete
    room = largest_group_for(group_size) - parts
    seated = min(leftovers, complete * room)
    holders = parts * complete + seated
    return _Shape(
        flush_rounds=levels if holders == n else 2 * levels - 1,
        inexact=n % parts > 0 or any(child.inexact for child in children),
        levels=levels,
        largest=max(*map(attrgetter("largest"), children), parts + -(-seated // complete)),
        parts=parts,
        holders=holders,
    )
