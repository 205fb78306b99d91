"""Positions that stay put while members come and go.

A plan is a function of positions. If a leave renumbered those behind it, every group would change
and every communicator would be built anew. So a leaver's cell stays as a hole: its groups shrink
and all others go on. A joiner takes a hole where there is one. Only when holes cost too much is
the layout compacted, which changes all groups at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from dssync.errors import ScheduleError
from dssync.schedule.modes import plan
from dssync.schedule.plans import Place, Plan, Settings
from dssync.schedule.validate import reachable

HOLES_TOLERATED = 0.12
"""Share of cells that may be holes. At 8 x 8 a complete column survives 8 holes in practice."""


class Cell(NamedTuple):
    """One position: where it is, and who is there; None is a hole."""

    place: Place
    occupant: str | None


@dataclass(frozen=True)
class Layout:
    """Cells in position order."""

    cells: tuple[Cell, ...] = ()

    @classmethod
    def of(cls, members: Iterable[tuple[str, Place]]) -> "Layout":
        """Lay members out by place, and in the given order where places are equal."""
        ordered = sorted(members, key=lambda member: member[1])
        return cls(tuple(Cell(place, occupant) for occupant, place in ordered))

    @property
    def members(self) -> tuple[tuple[str, Place], ...]:
        """Occupants and their places in position order, without holes: what a flush runs over."""
        return tuple(
            (cell.occupant, cell.place) for cell in self.cells if cell.occupant is not None
        )

    @property
    def hole_count(self) -> int:
        """Number of cells that nobody occupies."""
        return len(self.cells) - len(self.members)


def vacate(layout: Layout, occupant: str) -> Layout:
    """Turn the cell of a leaver into a hole.

    Raises:
        ScheduleError: The occupant has no cell.
    """
    position = _position(layout, occupant)
    if position is None:
        raise ScheduleError(f"member {occupant} cannot leave the layout: it has no cell in it")
    return _with_cell(layout, position, Cell(layout.cells[position].place, None))


def occupy(layout: Layout, place: Place, occupant: str) -> Layout:
    """Seat a joiner: in a hole of its rack, else in a compatible hole, else in a new cell.

    A hole is compatible if it contradicts nothing that is known of the joiner's place. A filled
    hole keeps its zone and rack, so that no other position changes its row.

    Raises:
        ScheduleError: The occupant has a cell already.
    """
    if _position(layout, occupant) is not None:
        raise ScheduleError(f"member {occupant} cannot join the layout: it has a cell already")
    holes = [number for number, cell in enumerate(layout.cells) if cell.occupant is None]
    fitting = [hole for hole in holes if _compatible(layout.cells[hole].place, place)]
    if not fitting:
        return Layout((*layout.cells, Cell(place, occupant)))
    hole = min(fitting, key=lambda number: _preference(layout.cells[number].place, place))
    kept = layout.cells[hole].place
    return _with_cell(layout, hole, Cell(Place(kept.zone, kept.rack, place.node), occupant))


def needs_replan(layout: Layout, settings: Settings) -> bool:
    """Tell whether the holes cost more than new communicators for everybody.

    True if more than one hole makes up more than 12 % of the cells, if more members per round are
    alone in their group than a compact layout would leave alone, or if holes cut the
    members into parts that never meet.
    """
    if layout.hole_count == 0 or not layout.members:
        return False
    if layout.hole_count > max(1, HOLES_TOLERATED * len(layout.cells)):
        return True
    if not _mixes(layout, settings):
        return True
    return _lonely_per_round(layout, settings) > _lonely_per_round(replan(layout), settings)


def replan(layout: Layout) -> Layout:
    """Lay the members out afresh, without holes."""
    return Layout.of(layout.members)


def plan_of(layout: Layout, settings: Settings) -> Plan:
    """Plan over all cells, holes included; positions are those of the cells."""
    return plan(tuple(cell.place for cell in layout.cells), settings)


def groups_of(layout: Layout, settings: Settings, round_number: int) -> tuple[tuple[str, ...], ...]:
    """Name the members of each group of a round, in rank order; holes and empty groups left out."""
    groups = (
        tuple(
            occupant
            for position in group
            if (occupant := layout.cells[position].occupant) is not None
        )
        for group in plan_of(layout, settings).groups(round_number)
    )
    return tuple(group for group in groups if group)


def _position(layout: Layout, occupant: str) -> int | None:
    return next(
        (number for number, cell in enumerate(layout.cells) if cell.occupant == occupant), None
    )


def _with_cell(layout: Layout, position: int, cell: Cell) -> Layout:
    return Layout((*layout.cells[:position], cell, *layout.cells[position + 1 :]))


def _compatible(hole: Place, joiner: Place) -> bool:
    return joiner.zone in ("", hole.zone) and joiner.rack in ("", hole.rack)


def _preference(hole: Place, joiner: Place) -> tuple[bool, bool]:
    """Order holes: the joiner's rack first, then its node."""
    return (hole.rack_path != joiner.rack_path, hole.node != joiner.node)


def _lonely_per_round(layout: Layout, settings: Settings) -> float:
    period = plan_of(layout, settings).period
    rounds = (groups_of(layout, settings, round_number) for round_number in range(period))
    return sum(len(group) == 1 for group in chain.from_iterable(rounds)) / period


def _mixes(layout: Layout, settings: Settings) -> bool:
    present = {number for number, cell in enumerate(layout.cells) if cell.occupant is not None}
    made = plan_of(layout, settings)
    groups = [
        tuple(member for member in group if member in present)
        for round_number in range(made.period)
        for group in made.groups(round_number) + made.columns(round_number)
    ]
    return reachable(groups, start=min(present)) == present
