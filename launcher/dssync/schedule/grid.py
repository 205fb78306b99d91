"""Levels of the ragged orthogonal grid, in two weightings.

Level 0 averages rows; each further level averages columns, which take a member of every child of
a node. Training rounds use the groups with equal weights: then a round is doubly stochastic, so
the mean of all members stays and each member's work counts 1/n. That is exact after one period
where the sizes factorise (only if n has no prime above the group size), else nearly.

A flush uses the *same groups* with weights, and is exact for every n. The invariant: after the
levels of a subtree its *holders* have the subtree's exact mean. A column is *complete* when it has
a holder of every child; weighting each child by its size makes its members holders of the node.
If some members are no holders of the root, the levels are walked back down, holders giving to
the rest; each subtree has a holder by then, because a complete column passed through it.
Finite exactness by weights goes beyond what equal cliques can do (arXiv 1706.02540).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from dssync.schedule.plans import (
    Partition,
    WeightedGroup,
    WeightedRound,
    largest_group_for,
)
from dssync.schedule.tree import Tree


@dataclass(frozen=True)
class Grid:
    """A subtree laid out.

    Attributes:
        order: Its positions, holders first.
        holder_count: How many hold its mean after the last level.
        levels: One weighted partition of its positions per level.
    """

    order: tuple[int, ...]
    holder_count: int
    levels: tuple[WeightedRound, ...]

    def partitions(self) -> tuple[Partition, ...]:
        """Groups of each level, for training rounds with equal weights."""
        return tuple(tuple(group.members for group in level) for level in self.levels)


def lay_grid(tree: Tree, group_size: int) -> Grid:
    """Turn a tree into the levels of its grid.

    A child with fewer levels than its siblings repeats its first level, which changes no value
    that is averaged already and gives its members a round where they would idle in training.
    """
    if tree.row:
        return Grid(tree.row, len(tree.row), ((_equally_weighted(tree.row),),))
    children = [lay_grid(child, group_size) for child in tree.children]
    complete, rest = _columns(children, largest_group_for(group_size))
    top = [_size_weighted(column, children) for column in complete]
    top += [_equally_weighted([member.position for member in column]) for column in rest]
    depth = max(len(child.levels) for child in children)
    padded = [child.levels[:1] * (depth - len(child.levels)) + child.levels for child in children]
    below = [
        _sorted_round([group for level in levels for group in level])
        for levels in zip(*padded, strict=True)
    ]
    return Grid(
        order=tuple(member.position for column in complete + rest for member in column),
        holder_count=sum(map(len, complete)),
        levels=(*below, _sorted_round(top)),
    )


def flush_rounds(grid: Grid) -> tuple[WeightedRound, ...]:
    """Rounds that give every position the exact mean: d upwards, at most d-1 back down."""
    if len(grid.order) == 1:
        return ()
    holders = set(grid.order[: grid.holder_count])
    rounds = list(grid.levels)
    for level in reversed(grid.levels[:-1]):
        if len(holders) == len(grid.order):
            break
        rounds.append(_sorted_round([part for group in level for part in _spread(group, holders)]))
        holders |= {
            member for group in level if holders & set(group.members) for member in group.members
        }
    return tuple(rounds)


def _spread(group: WeightedGroup, holders: set[int]) -> list[WeightedGroup]:
    """Let the holders of a group give to its other members; leave groups of one kind alone."""
    giving = holders & set(group.members)
    if not giving or len(giving) == len(group.members):
        return [WeightedGroup((member,), (1.0,)) for member in group.members]
    weights = tuple(1 / len(giving) if member in giving else 0.0 for member in group.members)
    return [WeightedGroup(group.members, weights)]


@dataclass(frozen=True)
class _Seat:
    """A member of a column: which child of the node it comes from, and whether it is a holder."""

    position: int
    child: int
    holds: bool


_Column = list[_Seat]


def _columns(children: Sequence[Grid], largest_group: int) -> tuple[list[_Column], list[_Column]]:
    """Seat all members of a node in complete columns, and what finds no room in others."""
    seats = [
        [
            _Seat(position, number, rank < child.holder_count)
            for rank, position in enumerate(child.order)
        ]
        for number, child in enumerate(children)
    ]
    count = min(child.holder_count for child in children)
    complete = [[of_child[rank] for of_child in seats] for rank in range(count)]
    leftovers = [seat for of_child in seats for seat in of_child[count:]]
    room = count * (largest_group - len(children))
    for turn, seat in enumerate(leftovers[:room]):
        complete[turn % count].append(seat)
    unseated = [
        [seat for seat in leftovers[room:] if seat.child == number]
        for number in range(len(children))
    ]
    rest = [[seat for seat in column if seat] for column in zip_longest(*unseated)]
    return complete, rest


def _size_weighted(column: _Column, children: Sequence[Grid]) -> WeightedGroup:
    """Weight each child's holders in a complete column by the child's share of the members."""
    total = sum(len(child.order) for child in children)
    holders = [0] * len(children)
    for seat in column:
        holders[seat.child] += seat.holds
    column = sorted(column, key=lambda seat: seat.position)
    return WeightedGroup(
        tuple(seat.position for seat in column),
        tuple(
            len(children[seat.child].order) / (total * holders[seat.child]) if seat.holds else 0.0
            for seat in column
        ),
    )


def _equally_weighted(members: Sequence[int]) -> WeightedGroup:
    return WeightedGroup(tuple(sorted(members)), (1 / len(members),) * len(members))


def _sorted_round(groups: list[WeightedGroup]) -> WeightedRound:
    return tuple(sorted(groups, key=lambda group: group.members))
