"""One group in one round: its attempts, from freeze to close.

The state machine of the retry rule. An exchange *runs* until everybody has applied. If somebody
is lost, or an operation failed, it *collects*: all members that have not applied are told to
abandon, and each answers ``Abandoned`` or has already sent ``Applied``. That answer is the probe
for life: nobody is evicted on an accusation, and a dead or frozen member simply does not answer.
When all answers are in, those who abandoned go into the next attempt, so that an attempt's
member list is never one that somebody has already left behind. Inside a round the group only
shrinks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Closed:
    """An exchange came to its end."""

    round: int
    kind: str
    members: tuple[str, ...]
    """Those who applied in the last attempt."""
    attempts: int
    cause: str
    reform_seconds: float | None
    """From the first evidence of a loss to the last survivor's commit."""


@dataclass(eq=False, slots=True)
class Exchange:
    """The state of one group of one frozen round; one of many, found again by identity."""

    round: int
    kind: str
    strict: bool
    members: tuple[str, ...]
    """Those of the current attempt, in rank order."""
    unweighted: frozenset[str]
    progress: float = 0.0
    """Committed fraction of the run when the round was frozen."""
    moments: str = ""
    """Layout of the optimizer's state that is averaged as well, from the next attempt on."""
    sums: int = 1
    """How many times as long as one sum of the values an attempt may take."""
    attempt: int = 0
    cause: str = ""
    """Why the current attempt is not the first."""
    evidence_seconds: float | None = None
    """When the first loss of this exchange became known."""
    collecting: bool = False
    decided: bool = False
    """Strict: the commit was decided; losses from here on change nothing."""
    arrived: set[str] = field(default_factory=set)
    confirmed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Strict: who holds the results, and the batches that the decision commits for it."""
    applied: set[str] = field(default_factory=set)
    """Over all attempts."""
    abandoned: set[str] = field(default_factory=set)
    first_arrival_seconds: float | None = None
    deadline_seconds: float | None = None
    communicators: set[str] = field(default_factory=set)
    """Ids of those of the current attempt."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """Members that have not applied."""
        return tuple(m for m in self.members if m not in self.applied)

    @property
    def late(self) -> tuple[str, ...]:
        """Members that the others wait for now: to answer, to apply, or to arrive."""
        if self.decided:
            return self.waiting
        present = self.abandoned if self.collecting else self.arrived
        return tuple(m for m in self.waiting if m not in present)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Members that others, without data, wait for without a deadline."""
        return self.late if self.arrived and self.deadline_seconds is None else ()

    @property
    def held(self) -> tuple[str, ...]:
        """Members that cannot arrive in a higher round, through no fault that is known yet."""
        if self.deadline_seconds is not None:
            return self.waiting
        return tuple(m for m in self.waiting if m in self.arrived)

    @property
    def closed(self) -> bool:
        """Whether nobody is left who has to apply."""
        return self.applied.issuperset(self.members)

    @property
    def running(self) -> bool:
        """Whether the current attempt can still be given up."""
        return not (self.collecting or self.decided or self.closed)

    @property
    def collected(self) -> bool:
        """Whether every member that has not applied has abandoned."""
        return self.collecting and self.abandoned.issuperset(self.waiting)

    @property
    def all_confirmed(self) -> bool:
        """Strict: whether every member of the attempt holds its results."""
        return self.strict and not self.collecting and self.confirmed.keys() >= {*self.members}

    @property
    def undecided(self) -> bool:
        """Strict: whether nobody but the coordinator, which may not decide, is waited for."""
        return self.all_confirmed and not (self.decided or self.closed)

    def first_of(self, view: tuple[str, ...]) -> str:
        """Return who speaks for the job; of a flush somebody who is in it, for it is saved."""
        return (view if self.kind == "train" else self.members)[0]

    def result(self, now: float) -> Closed:
        """Return what there is to tell of it when it closes."""
        evidence = self.evidence_seconds
        return Closed(
            round=self.round,
            kind=self.kind,
            members=self.members,
            attempts=self.attempt,
            cause=self.cause,
            reform_seconds=None if evidence is None else now - evidence,
        )

    def expire_at(self, seconds: float) -> None:
        """Set the deadline, unless it is earlier."""
        known = self.deadline_seconds
        self.deadline_seconds = seconds if known is None else min(known, seconds)

    def collect(self, cause: str, now: float, deadline: float) -> None:
        """Give the current attempt up and await the members' answers."""
        self.collecting = True
        self.cause = cause
        self.evidence_seconds = now if self.evidence_seconds is None else self.evidence_seconds
        self.deadline_seconds = deadline

    def explain(self, cause: str) -> None:
        """Note why an operation failed: a mate's report often comes before the news of a loss."""
        if self.cause == "failed":
            self.cause = cause

    def drop(self, keys: Iterable[str]) -> None:
        """Take members out of the exchange."""
        gone = frozenset(keys)
        self.members = tuple(m for m in self.members if m not in gone)

    def retry(self) -> None:
        """Begin the next attempt with those who abandoned."""
        self.members = self.waiting
        self.attempt += 1
        self.collecting = False
        self.arrived.clear()
        self.confirmed.clear()
        self.abandoned.clear()
        self.deadline_seconds = None
        self.first_arrival_seconds = None
