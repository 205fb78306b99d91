"""Invariants of assignments: views, groups, communicators, weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from dssync.control import messages as m
from dssync.control.history import VOTES_KEPT
from simulation.violation import require

if TYPE_CHECKING:
    from simulation.observer import Observer

Attempt = tuple[int, int]
"""Round and attempt."""
Fresh = list[tuple[str, m.Assign]]


class Assignments:
    """All assignments of one term, and what must hold among them."""

    def __init__(self, observer: Observer, term: int) -> None:
        self.eligible: set[str] = set()
        """Members whose values may count."""
        self.givers: dict[Attempt, list[str]] = {}
        """Whose values are in the mean of a flush."""
        self.weights: dict[tuple[Attempt, str], dict[str, float]] = defaultdict(dict)
        self.applied_at_members: dict[tuple[str, int], int] = {}
        """The attempt that a member has applied in a round, before anybody hears of it.

        It is -1 where nobody led."""
        self._observer = observer
        self._term = term
        self._views: dict[int, tuple[int, int, str]] = {}
        self._broken: set[str] = set()
        self._broken_news = False
        self._all: dict[str, dict[int, dict[int, m.Assign]]] = defaultdict(dict)
        self._outstanding: dict[str, dict[int, m.Assign]] = defaultdict(dict)
        self._last_round: dict[str, int] = {}
        self._timed_out: dict[int, set[str]] = defaultdict(set)
        """Members of attempts that a timeout ended while a mate or the coordinator was held up."""

    # --- what happened ------------------------------------------------------------------------

    def assigned(self, key: str, assign: m.Assign) -> None:
        """A member gets an assignment."""
        # Of a flush somebody speaks who is in the attempt.
        first = assign.first if assign.kind == "train" else ""
        view = (assign.view, assign.world_size, first)
        known = self._views.setdefault(assign.round, view)
        require(known == view, f"round {assign.round} has two views: {known} and {view}")
        last = self._last_round.get(key, assign.round)
        require(assign.round <= last, f"{key} drains with {last} but gets round {assign.round}")
        self._all[key].setdefault(assign.round, {})[assign.attempt] = assign
        self._outstanding[key][assign.round] = assign
        if assign.kind == "final":
            self._observer.final_seconds = min(self._observer.final_seconds, self._observer.now)
        for stage in assign.stages:
            self._add_stage(key, assign, stage)

    def _add_stage(self, key: str, assign: m.Assign, stage: m.Stage) -> None:
        known = self._observer.communicators.setdefault(stage.communicator, stage.members)
        if known != stage.members or key not in known or stage.communicator in self._broken:
            broken = stage.communicator in self._broken
            require(False, f"{key} gets {stage}; known for {known}, broken: {broken}")
        self.weights[(assign.round, assign.attempt), stage.communicator][key] = stage.weight

    def started(self, key: str, first_round: int) -> None:
        """A member begins anew at a round: what it had open in an earlier life it dropped."""
        self._all[key] = {n: each for n, each in self._all[key].items() if n >= first_round}

    def applied(self, key: str, message: m.Applied) -> None:
        """The coordinator hears that a member has applied."""
        self._outstanding[key].pop(message.round, None)
        assign = self.of(key, message.round, message.attempt)
        if assign is not None and assign.stages:
            self.eligible.add(key)

    def given_up(self, key: str, number: int) -> None:
        """A member is told to give its attempt up: its communicators are broken."""
        dropped = self._outstanding[key].pop(number, None)
        if dropped is not None and dropped.stages:
            self._broken.update(stage.communicator for stage in dropped.stages)
            self._broken_news = True

    def committed(self, key: str, number: int) -> None:
        """A member is told to commit: its operations are over."""
        self._outstanding[key].pop(number, None)

    def timed_out(self, key: str, number: int, attempt: int, *, holds: bool) -> None:
        """An operation waited in vain: for a mate that a lower round holds up, if all is well.

        Args:
            key: who says so.
            number: the round.
            attempt: the attempt.
            holds: the coordinator may not decide, so that strict rounds stay open.
        """
        assign = self.of(key, number, attempt)
        if assign is not None:
            group = mates(key, assign)
            if any(self._is_held(mate, number, holds=holds) for mate in group):
                self._forgive(assign)

    def not_built(self, key: str, number: int, attempt: int) -> None:
        """Mates' addresses did not come by way of a coordinator that was hit."""
        assign = self.of(key, number, attempt)
        if assign is not None:
            self._forgive(assign)

    def _forgive(self, assign: m.Assign) -> None:
        for each, given_up in self._entangled(assign):
            self._timed_out[given_up] |= mates(each, self._all[each][given_up][0])

    def _entangled(self, assign: m.Assign) -> list[tuple[str, int]]:
        """Return who is in which open round that is given up with an attempt.

        They share its communicator, directly or through others.
        """
        broken = _communicators(assign)
        while True:
            hit = [
                (key, number, each)
                for key, rounds in self._outstanding.items()
                for number, each in rounds.items()
                if _communicators(each) & broken
            ]
            wider = broken.union(*(_communicators(each) for _, _, each in hit))
            if wider == broken:
                return [(key, number) for key, number, _ in hit]
            broken = wider

    def _is_held(self, key: str, number: int, *, holds: bool) -> bool:
        """Tell whether a fault keeps a member, or through others, in a round below this one."""
        return any(
            (holds and assign.strict)
            or any(
                mate in self._observer.touched or self._is_held(mate, lower, holds=holds)
                for mate in mates(key, assign)
            )
            for lower, assign in self._outstanding[key].items()
            if lower < number
        )

    def forget(self, key: str) -> None:
        """A member is gone; it may come back."""
        self._outstanding.pop(key, None)
        self._last_round.pop(key, None)

    def drains(self, key: str, last_round: int) -> None:
        known = self._last_round.setdefault(key, last_round)
        require(last_round >= known, f"{key} drains with {known}, and is told {last_round}")
        self._last_round[key] = last_round
        self._observer.drained.add(key)

    def of(self, key: str, number: int, attempt: int) -> m.Assign | None:
        """Return what a member was to do in an attempt."""
        return self._all[key].get(number, {}).get(attempt)

    def missed(self, key: str, mate: str) -> set[Attempt]:
        """Return the strict attempts that a mate has applied and a member has open."""
        found = set()
        for number in sorted(self._all[key])[-VOTES_KEPT:]:
            attempts = self._all[key][number]
            last = attempts[max(attempts)]
            done = self.applied_at_members.get((mate, number))
            shared = mate in mates(key, last) or last.kind != "train"
            behind = (key, number) not in self.applied_at_members
            if last.strict and shared and behind and done == last.attempt:
                found.add((number, last.attempt))
        return found

    def kind_of(self, key: str, number: int) -> str:
        """Return what a member's round was frozen as."""
        return next(iter(self._all[key][number].values())).kind

    # --- what must hold -----------------------------------------------------------------------

    def check(self, fresh: Fresh, alive: Container[str]) -> None:
        """Check what the coordinator assigned in one event.

        Args:
            fresh: the assignments of this event.
            alive: members that take part.
        """
        for key, assign in fresh:
            self._check_weights(key, assign)
            if assign.attempt:
                self._check_retry(key, assign)
        for attempt in {(a.round, a.attempt) for _, a in fresh if a.kind != "train"}:
            self._check_flush(attempt, fresh)
        if self._broken_news:
            self._check_broken(alive)

    def _check_weights(self, key: str, assign: m.Assign) -> None:
        """The weights of a group sum to 1, and in training rounds all that count are equal."""
        for stage in assign.stages:
            if assign.kind == "train" and stage.weight > 0 and key not in self.eligible:
                require(False, f"joiner {key} has weight {stage.weight} in {assign}")
            weights = self.weights[(assign.round, assign.attempt), stage.communicator]
            off = abs(sum(weights.values()) - 1) if len(weights) == len(stage.members) else 1.0
            if off > 1e-9 or (assign.kind == "train" and len({*weights.values()} - {0.0}) != 1):
                require(False, f"{stage} of round {assign.round} has weights {weights}")

    def _check_retry(self, key: str, assign: m.Assign) -> None:
        """A group shrinks, retries only for a fault, and never past a strict commit."""
        number, attempts = assign.round, self._all[key][assign.round]
        require(assign.attempt - 1 in attempts, f"{key} is new in a retry: {assign}")
        first, was, now = (mates(key, attempts[n]) for n in (0, assign.attempt - 1, assign.attempt))
        if assign.kind == "train":
            require(now <= was, f"the group of {key} grew from {was} to {now} in {number}")
            hit = len(first) == 1 or any(mate in self._observer.touched for mate in first)
            # Launchers leave a coordinator when another one has won, without any fault.
            hit = hit or self._observer.is_over(self._term)
            hit = hit or (assign.cause == "failed" and self._timed_out[number].issuperset(first))
            require(hit, f"{key} retries {number} ({assign.cause}) though no fault hit {first}")
        # Who has done the round while nobody led enters anew now that somebody is heard again; that
        # it has abandoned the attempt before may be heard first.
        done = [mate for mate in now if self.applied_at_members.get((mate, number), -1) >= 0]
        require(not done, f"{key} retries round {number} with {done}, who applied it")
        if assign.strict:
            last = assign.attempt - 1
            done = [mate for mate in was if self.applied_at_members.get((mate, number)) == last]
            require(not done, f"{key} retries strict round {number} that {done} applied")

    def _check_flush(self, attempt: Attempt, fresh: Fresh) -> None:
        """The stages of a flush give every member the plain mean of all but the joiners."""
        stages = {key: a.stages for key, a in fresh if (a.round, a.attempt) == attempt}
        rows = coefficients(stages)
        first = {a.first for _, a in fresh if (a.round, a.attempt) == attempt}
        require(
            len(first) == 1 and first <= rows.keys(),
            f"{first} are to save flush {attempt} of {sorted(rows)}",
        )
        givers = {key for row in rows.values() for key, share in row.items() if share > 0}
        counted = givers <= self.eligible and set(rows) - givers <= self._observer.joiners
        require(counted, f"flush {attempt} of {sorted(rows)} takes the values of {sorted(givers)}")
        for key, row in rows.items():
            off = max(abs(row.get(giver, 0.0) - 1 / len(givers)) for giver in givers)
            require(off < 1e-9, f"{key} takes {row} in flush {attempt} of {sorted(givers)}")
        self.givers[attempt] = sorted(givers)

    def _check_broken(self, alive: Container[str]) -> None:
        self._broken_news = False
        for key, rounds in self._outstanding.items():
            for assign in rounds.values() if key in alive else ():
                left = [s for s in assign.stages if s.communicator in self._broken]
                require(not left, f"{key} is left with broken communicators {left} in {assign}")


def mates(key: str, assign: m.Assign) -> set[str]:
    """Return who is in a stage with a member, itself included."""
    return {key}.union(*(stage.members for stage in assign.stages))


def _communicators(assign: m.Assign) -> set[str]:
    return {stage.communicator for stage in assign.stages}


def coefficients(stages: dict[str, tuple[m.Stage, ...]]) -> dict[str, dict[str, float]]:
    """Return how much of each member's values each member ends with after all stages."""
    rows = {key: {key: 1.0} for key in stages}
    left = {key: list(each) for key, each in stages.items()}
    while any(left.values()):
        ready = _ready(left)
        require(bool(ready), f"the stages {stages} wait for each other")
        for group in ready:
            total: dict[str, float] = defaultdict(float)
            for mate in group:
                weight = left[mate].pop(0).weight
                for giver, share in rows[mate].items():
                    total[giver] += share * weight
            for mate in group:
                rows[mate] = {giver: share for giver, share in total.items() if share}
    return rows


def _ready(left: dict[str, list[m.Stage]]) -> Iterable[tuple[str, ...]]:
    """Return the groups all of whose members come to their common stage next."""
    heads = {key: each[0] for key, each in left.items() if each}
    return {
        head.members
        for head in heads.values()
        if all(
            mate in heads and heads[mate].communicator == head.communicator for mate in head.members
        )
    }
