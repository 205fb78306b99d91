"""What the members of a run say, and what follows from it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, product
from typing import Final

from benchmarks.reform.trainer import own_value

TOLERANCE: Final = 1e-4
"""Between two rounds the values differ by ten times this."""
PERIOD: Final = 4
"""Rounds after which the pool of groups of eight members begins again."""


@dataclass(frozen=True)
class Round:
    """One round at one member; times are monotonic."""

    time: float
    member: str
    round: int
    kind: str
    attempts: int
    result: str
    members: tuple[str, ...]
    seconds: float
    world: int
    low: float
    high: float
    batch: int


@dataclass
class History:
    """All that the members of a run have said."""

    rounds: dict[int, dict[str, Round]] = field(default_factory=dict)
    """By number and member."""
    latest: dict[str, Round] = field(default_factory=dict)
    by_member: dict[str, list[Round]] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    joined: dict[str, float] = field(default_factory=dict)
    weightless: dict[str, int] = field(default_factory=dict)
    """Joiners, with the round that they entered with weight 0."""
    left: dict[str, float] = field(default_factory=dict)

    def add(self, line: Mapping[str, object]) -> None:
        """Take in one line of a member."""
        fields = dict(line)
        member, event, pid = str(fields["member"]), fields.pop("event"), fields.pop("pid")
        at_seconds = float(str(fields["time"]))
        if event == "ready":
            self.ready[member], self.pids[member] = at_seconds, int(str(pid))
        elif event == "joined":
            self.joined[member] = at_seconds
            if int(str(fields["round"])) >= 0:
                self.weightless[member] = int(str(fields["round"]))
        elif event == "left":
            self.left[member] = at_seconds
        else:
            fields["members"] = tuple(fields["members"])  # type: ignore[arg-type]
            self._add_round(Round(**fields))  # type: ignore[arg-type]

    def _add_round(self, record: Round) -> None:
        self.rounds.setdefault(record.round, {})[record.member] = record
        self.by_member.setdefault(record.member, []).append(record)
        self.latest[record.member] = record

    def group_of(self, member: str, number: int) -> tuple[str, ...]:
        """Return whom the schedule puts together with a member, from one or more periods before.

        Raises:
            KeyError: the member has not taken part in such a round.
        """
        before = number - PERIOD
        while before > 0 and member not in self.rounds.get(before, {}):
            before -= PERIOD
        return self.rounds[before][member].members

    def is_right(self, record: Round) -> bool:
        """Tell whether a round left the mean of those whose values counted."""
        if record.result == "skipped":
            return False
        return any(
            abs(record.low - mean) <= TOLERANCE and abs(record.high - mean) <= TOLERANCE
            for mean in self._means(record)
        )

    def _means(self, record: Round) -> list[float]:
        """Return what may be left.

        A joiner does not count in its first round; whether it counts in the three after it
        depends on whether they were frozen before that one was committed.
        """
        ages = {m: record.round - self.weightless.get(m, -4) for m in record.members}
        settled = [m for m in ages if ages[m] > 3]
        open_ = [m for m in ages if 0 < ages[m] <= 3]
        means = []
        for chosen in product((False, True), repeat=len(open_)):
            counted = settled + list(compress(open_, chosen))
            values = [self._value(m, record.round) for m in counted]
            means += [sum(values) / len(values)] if values else []
        return means

    def _value(self, member: str, number: int) -> float:
        """Return what a member brought into a round.

        One that was told to leave takes part in its last rounds without training, and so brings
        what the round before has left.
        """
        if member not in self.left or member in self.rounds[number]:
            return own_value(member, number)
        before = self.rounds.get(number - 1, {}).values()
        return next((r.low for r in before if member in r.members), float("nan"))

    def wrong(self) -> list[Round]:
        """Return the training rounds with another result than the mean; a flush is none."""
        records = (r for each in self.rounds.values() for r in each.values())
        return [r for r in records if r.kind != "final" and not self.is_right(r)]

    def batches(self) -> list[int]:
        """Return the batches of all rounds, sorted."""
        return sorted(r.batch for each in self.rounds.values() for r in each.values())


@dataclass(frozen=True)
class Hit:
    """A round that was hit by the loss of a member."""

    round: int
    group: tuple[str, ...]
    """As it was frozen."""


def first_hit(history: History, victim: str, survivors: frozenset[str]) -> Hit | None:
    """Return the first round that a victim's group committed without it, once it has.

    Args:
        history: of the run.
        victim: who was killed.
        survivors: all others that took part.
    """
    number = history.latest[victim].round + 1
    while True:
        group = tuple(m for m in history.group_of(victim, number) if m != victim)
        records = [history.rounds.get(number, {}).get(m) for m in group if m in survivors]
        present = [r for r in records if r is not None]
        if len(present) < len(records):
            return None
        if any(r.attempts or victim not in r.members for r in present):
            return Hit(number, history.group_of(victim, number))
        # All of them finished the round with the victim's values; its next one is the hit one.
        number += 1
        if number - history.latest[victim].round > 2:
            raise RuntimeError(f"{victim} was killed and its groups did not notice")


def reformed_seconds(history: History, hit: Hit, victims: Iterable[str], killed: float) -> float:
    """Return the time from a kill to the commit of the last survivor.

    Raises:
        RuntimeError: a survivor holds a wrong result.
    """
    survivors = [m for m in hit.group if m not in set(victims)]
    records = [history.rounds[hit.round][m] for m in survivors]
    for record in records:
        if not history.is_right(record):
            raise RuntimeError(f"a survivor holds a wrong result: {record}")
    return max(r.time for r in records) - killed


def retries_elsewhere(
    history: History, since_round: int, victims: Sequence[str], hits: Sequence[Hit]
) -> int:
    """Count retries from a round on at members whose frozen group held no victim.

    Views freeze two rounds ahead, and another group may be one round ahead of the hit one; so a
    victim may be frozen into the hit round and the three after it.
    """
    hit_groups: dict[int, set[str]] = {}
    for victim, hit in zip(victims, hits, strict=True):
        for number in range(hit.round, hit.round + 4):
            hit_groups.setdefault(number, set()).update(history.group_of(victim, number))
    return sum(
        bool(record.attempts) and member not in hit_groups.get(number, ())
        for number, records in history.rounds.items()
        if number >= since_round
        for member, record in records.items()
    )
