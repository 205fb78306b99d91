"""Invariants of what members apply: order, agreement, and the right mean."""

from dssync.control import messages as m
from simulation.assignments import Assignments, mates
from simulation.fabric import Numbers
from simulation.violation import require


class Values:
    """What members started attempts with and what they applied."""

    def __init__(self, assignments: Assignments) -> None:
        self.applied_count = 0
        self.finalists: set[str] = set()
        """Members that applied the final flush."""
        self.summed: set[str] = set()
        """Members that have applied a sum."""
        self._assignments = assignments
        self._before: dict[tuple[str, int, int], Numbers] = {}
        self._last: dict[str, int] = {}
        self._flushed: dict[int, int] = {}

    def new_term(self) -> None:
        """A flush that no survivor knows may be repeated under its number."""
        self._flushed.clear()

    def begun(self, key: str, assign: m.Assign, values: Numbers) -> None:
        """A member starts an attempt with these values."""
        self._before[key, assign.round, assign.attempt] = list(values)

    def applied(self, key: str, assign: m.Assign, values: Numbers) -> None:
        """A member applies these values."""
        number, last = assign.round, self._last.get(key, -1)
        require(number > last, f"{key} applies round {number} after round {last}")
        self._last[key] = number
        self._assignments.applied_at_members[key, number] = assign.attempt
        self.applied_count += 1
        if assign.stages:
            self.summed.add(key)
        if assign.kind == "final":
            self.finalists.add(key)
        self._check_agreement(key, assign)
        self._check_mean(key, assign, values)

    def _check_agreement(self, key: str, assign: m.Assign) -> None:
        """Strict: nobody applies another attempt than its mates."""
        number, attempt = assign.round, assign.attempt
        if assign.kind != "train":
            decided = self._flushed.setdefault(number, attempt)
            require(decided == attempt, f"{key} applies attempt {attempt} of flush {number}")
        for mate in mates(key, assign) if assign.strict else ():
            other = self._assignments.applied_at_members.get((mate, number), attempt)
            require(other == attempt, f"{key} and {mate} apply two attempts of round {number}")

    def _check_mean(self, key: str, assign: m.Assign, values: Numbers) -> None:
        attempt = (assign.round, assign.attempt)
        if not assign.stages:
            expected = self._before[key, *attempt]
        else:
            starts = [self._before[giver, *attempt] for giver in self._givers(assign)]
            expected = [sum(column) / len(column) for column in zip(*starts, strict=True)]
        off = max(abs(a - b) for a, b in zip(values, expected, strict=True))
        require(off < 1e-9, f"{key} is off by {off} in round {assign.round} ({assign.kind})")

    def _givers(self, assign: m.Assign) -> list[str]:
        attempt = (assign.round, assign.attempt)
        if assign.kind != "train":
            return self._assignments.givers[attempt]
        weights = self._assignments.weights[attempt, assign.stages[0].communicator]
        return [mate for mate, weight in weights.items() if weight > 0]
