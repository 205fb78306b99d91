"""Members and views: who takes part.

A view is immutable; each transition returns the next one with a higher sequence. A round is
frozen on one view, so everything about a round follows from (view, round, seed).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from dssync.errors import ProtocolError
from dssync.schedule import (
    Layout,
    Place,
    Settings,
    needs_replan,
    occupy,
    plan_of,
    replan,
    vacate,
)


@dataclass(frozen=True, order=True)
class Member:
    """One worker process: where it sits and which life of it this is."""

    slot: int
    local_rank: int
    incarnation: str
    """128 random bits in hexadecimal, new at every process start; compared for equality only."""

    @property
    def key(self) -> str:
        """The member's name in messages and communicators."""
        return f"{self.slot}.{self.local_rank}.{self.incarnation}"

    @classmethod
    def parse(cls, key: str) -> "Member":
        """Return the member with this key.

        Raises:
            ValueError: it is not a key.
        """
        slot, local_rank, incarnation = key.split(".")
        return cls(int(slot), int(local_rank), incarnation)


def slot_of(key: str) -> int:
    """Return the slot in a member's key.

    Raises:
        ProtocolError: it is not a key.
    """
    # Called for each message: half the time of `Member.parse`, and a cache would hold the dead.
    try:
        slot, local_rank, _ = key.split(".")
        int(local_rank)
        return int(slot)
    except ValueError:
        raise ProtocolError(f"{key!r} is no member: expected slot.local_rank.incarnation") from None


@dataclass(frozen=True)
class View:
    """Who takes part, where each one sits, and whose values do not count yet."""

    term: int
    sequence: int
    layout: Layout
    unweighted: frozenset[str]
    """Joiners that have not shared a committed round with a weighted member."""

    @classmethod
    def first(cls, term: int, members: Iterable[tuple[str, Place]], sequence: int = 1) -> "View":
        """Return the view in which a world starts; everybody has weight."""
        return cls(term, sequence, Layout.of(members), frozenset())

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each member runs, in layout order."""
        return dict(self.layout.members)

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Keys in layout order."""
        return tuple(self.places)

    def __contains__(self, key: object) -> bool:
        return key in self.places

    def period(self, settings: Settings) -> int:
        """Return the number of rounds after which the groups repeat."""
        if settings not in self._periods:
            self._periods[settings] = plan_of(self.layout, settings).period
        return self._periods[settings]

    @cached_property
    def _periods(self) -> dict[Settings, int]:
        return {}

    def without(self, key: str, settings: Settings) -> "View":
        """Return the view after ``key`` left."""
        return self._next(vacate(self.layout, key), self.unweighted - {key}, settings)

    def with_joiner(self, key: str, place: Place, settings: Settings) -> "View":
        """Return the view after ``key`` was admitted with weight 0."""
        return self._next(occupy(self.layout, place, key), self.unweighted | {key}, settings)

    def moved(self, places: Mapping[str, Place]) -> "View":
        """Return the view whose members run where ``places`` says; all groups may change."""
        if places == self.places:
            return self
        return replace(self, sequence=self.sequence + 1, layout=Layout.of(places.items()))

    def with_weight(self, keys: Iterable[str]) -> "View":
        """Return the view in which the values of ``keys`` count."""
        unweighted = self.unweighted - frozenset(keys)
        if unweighted == self.unweighted:
            return self
        return replace(self, sequence=self.sequence + 1, unweighted=unweighted)

    def _next(self, layout: Layout, unweighted: frozenset[str], settings: Settings) -> "View":
        settled = replan(layout) if needs_replan(layout, settings) else layout
        return View(self.term, self.sequence + 1, settled, unweighted)
