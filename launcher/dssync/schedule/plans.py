"""What a schedule is made from and what it is: places, settings, plans.

A plan speaks of positions 0 … n-1, the order of the members in a view; it knows neither names nor
addresses. Everything here is immutable and hashable, so that plans can be cached and compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dssync.errors import ScheduleError

MODES = ("grid", "pool", "cross", "stream", "allreduce")

Group = tuple[int, ...]
Partition = tuple[Group, ...]


@dataclass(frozen=True, order=True)
class Place:
    """Where a member runs; an empty part is unknown, and unknown parts count as one place."""

    zone: str = ""
    rack: str = ""
    node: str = ""

    @property
    def rack_path(self) -> tuple[str, str]:
        """Zone and rack: what decides whether two members share an uplink."""
        return (self.zone, self.rack)


@dataclass(frozen=True)
class Settings:
    """What a user chooses about the groups.

    Attributes:
        mode: One of ``MODES``.
        group_size: Largest group of a training round, at least 2; ``allreduce`` ignores it.
        seed: Varies the partitions of ``pool``.
        fragments: Parts into which ``stream`` cuts the parameters, at least 1.

    Raises:
        ScheduleError: A value is out of range.
    """

    mode: str = "grid"
    group_size: int = 4
    seed: int = 0
    fragments: int = 8

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ScheduleError(
                f"schedule mode {self.mode!r} does not exist: choose one of {', '.join(MODES)}"
            )
        if self.group_size < 2:
            raise ScheduleError(
                f"group size {self.group_size} is too small: a group needs at least 2 members "
                "to average, so choose 2 or more"
            )
        if self.fragments < 1:
            raise ScheduleError(
                f"{self.fragments} fragments cannot hold the parameters: choose 1 or more"
            )


def largest_group_for(group_size: int) -> int:
    """Cap that rounds keep: among pairs an odd member may make a group of three."""
    return max(group_size, 3)


@dataclass(frozen=True)
class WeightedGroup:
    """A group of a flush: each scales its own tensor by its own weight, then all sum.

    Attributes:
        members: Positions, ascending.
        weights: One per member; they sum to 1. A member of weight 0 only receives.
    """

    members: Group
    weights: tuple[float, ...]


WeightedRound = tuple[WeightedGroup, ...]


@dataclass(frozen=True)
class Plan:
    """The rounds of a fixed list of members.

    Attributes:
        mode: The mode in force; differs from the one asked for where that needs more racks.
        size: Number of members, n.
        largest_group: Cap on the size of a group.
        rounds: Partitions of ``range(n)`` that training rounds cycle through.
        flush: Weighted rounds after which all members hold the mean of all, if nobody trains
            in between; each is a partition of ``range(n)``.
        column_rounds: ``stream`` only: partitions across rows that fragments cycle through.
        fragments: ``stream`` only: number of fragments; 1 elsewhere.
    """

    mode: str
    size: int
    largest_group: int
    rounds: tuple[Partition, ...]
    flush: tuple[WeightedRound, ...]
    column_rounds: tuple[Partition, ...] = ()
    fragments: int = 1

    @property
    def period(self) -> int:
        """Number of rounds after which the schedule repeats."""
        return max(len(self.rounds), self.fragments * len(self.column_rounds))

    def groups(self, round_number: int) -> Partition:
        """Partition of ``range(n)`` that averages whole models, with equal weights."""
        return self.rounds[round_number % len(self.rounds)]

    def columns(self, round_number: int) -> Partition:
        """Partition that averages ``fragment(round_number)`` besides; empty but in ``stream``."""
        if not self.column_rounds:
            return ()
        return self.column_rounds[round_number // self.fragments % len(self.column_rounds)]

    def fragment(self, round_number: int) -> int:
        """Fragment of the parameters that the columns of a round average, 0 … fragments-1."""
        return round_number % self.fragments


def sorted_partition(groups: Iterable[Iterable[int]]) -> Partition:
    """Put groups into the one order that a partition is written in: rank order."""
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def singletons(n: int) -> Partition:
    """Make the partition in which nobody averages."""
    return tuple((position,) for position in range(n))
