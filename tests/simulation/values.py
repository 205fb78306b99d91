"""Invariants of what members apply: order, agreement, and the right mean."""

from __future__ import annotations

from dssync.control import messages as m
from dssync.control.provisional import CAUSE
from simulation.assignments import Assignments, mates
from simulation.fabric import Numbers
from simulation.violation import require


class Values:
    """What members started attempts of one term with and what they applied."""

    def __init__(self, assignments: Assignments) -> None:
        self._assignments = assignments
        self._before: dict[tuple[str, int, int], Numbers] = {}
        self._last: dict[str, int] = {}
        self._flushed: dict[int, int] = {}

    def started(self, key: str) -> None:
        """A member begins anew; what it applied in an earlier life was discarded."""
        self._last.pop(key, None)

    def begun(self, key: str, assign: m.Assign, values: Numbers) -> None:
        """A member starts an attempt with these values."""
        self._before[key, assign.round, assign.attempt] = list(values)

    def applied(self, key: str, assign: m.Assign, values: Numbers) -> None:
        """A member applies these values."""
        number, last = assign.round, self._last.get(key, -1)
        if number <= last:
            require(False, f"{key} applies round {number} after round {last}")
        self._last[key] = number
        # A provisional round is none of the attempts that a coordinator knows.
        attempt = -1 if assign.cause == CAUSE else assign.attempt
        self._assignments.applied_at_members[key, number] = attempt
        if assign.strict:
            self._check_agreement(key, assign)
        self._check_mean(key, assign, values)

    def _check_agreement(self, key: str, assign: m.Assign) -> None:
        """Strict: nobody applies another attempt than its mates."""
        number, attempt = assign.round, assign.attempt
        if assign.kind != "train":
            decided = self._flushed.setdefault(number, attempt)
            require(decided == attempt, f"{key} applies attempt {attempt} of flush {number}")
        for mate in mates(key, assign):
            other = self._assignments.applied_at_members.get((mate, number), attempt)
            if other != attempt:
                require(False, f"{key} and {mate} apply two attempts of round {number}")

    def _check_mean(self, key: str, assign: m.Assign, values: Numbers) -> None:
        attempt = (assign.round, assign.attempt)
        if not assign.stages:
            expected = self._before[key, *attempt]
        elif assign.cause == CAUSE:
            return  # A provisional round; the fabric has looked at its weights.
        else:
            starts = [self._before[giver, *attempt] for giver in self._givers(assign)]
            expected = [sum(column) / len(starts) for column in zip(*starts, strict=True)]
        off = max([abs(a - b) for a, b in zip(values, expected, strict=True)])
        if off >= 1e-9:
            require(False, f"{key} is off by {off} in round {assign.round} ({assign.kind})")

    def _givers(self, assign: m.Assign) -> list[str]:
        attempt = (assign.round, assign.attempt)
        if assign.kind != "train":
            return self._assignments.givers[attempt]
        weights = self._assignments.weights[attempt, assign.stages[0].communicator]
        return [mate for mate, weight in weights.items() if weight > 0]
