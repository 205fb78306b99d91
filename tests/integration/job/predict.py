"""What the parameters must be, computed by numpy from nothing but the reports of rounds.

Between two rounds a member adds its deltas; a round replaces the values of a group's members by
their mean. The oracle knows no dssync code: who averaged with whom comes from the reports.
"""

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

Line = dict[str, Any]
Values = NDArray[np.float64]
SHOWN = 4


def delta(number: int, step: int) -> Values:
    """Return what a member adds in one step; see ``scripts/training.py``."""
    return (1 + number) * np.cos(step + np.arange(SHOWN, dtype=np.float64))


def number_of(line: Line) -> int:
    return int(line["slot"]) * 16 + int(line["rank"])


def by_round(lines: list[Line]) -> dict[int, dict[str, Line]]:
    """Sort reports by round and member."""
    rounds: dict[int, dict[str, Line]] = defaultdict(dict)
    for line in lines:
        rounds[line["round"]][line["own"]] = line
    return dict(sorted(rounds.items()))


class Oracle:
    """The values of members that all start together, round by round."""

    def __init__(self) -> None:
        self._values: dict[str, Values] = defaultdict(lambda: np.zeros(SHOWN))
        self._steps: dict[str, int] = defaultdict(int)

    def after(self, reports: dict[str, Line]) -> dict[str, Values]:
        """Return each member's values after a round, given all its reports."""
        for key, line in reports.items():
            for step in range(self._steps[key] + 1, line["steps"] + 1):
                self._values[key] = self._values[key] + delta(number_of(line), step)
            self._steps[key] = line["steps"]
        means = {key: self._mean(line, list(reports)) for key, line in reports.items()}
        self._values.update(means)
        return means

    def _mean(self, line: Line, everybody: list[str]) -> Values:
        # A flush goes through several groups; together they give the mean of who is in it.
        members = line["members"] if line["kind"] == "train" else everybody
        if line["result"] != "committed":
            return self._values[line["own"]]
        return np.mean([self._values[key] for key in members], axis=0)


def assert_follows_oracle(lines: list[Line]) -> None:
    """Compare every report of a job that nobody joins later with what the oracle says."""
    oracle = Oracle()
    for number, reports in by_round(lines).items():
        expected = oracle.after(reports)
        for key, line in reports.items():
            for name, tolerance in (("w32", 1e-6), ("w64", 1e-12)):
                np.testing.assert_allclose(
                    line["values"][name],
                    expected[key],
                    rtol=tolerance,
                    atol=tolerance * 100,
                    err_msg=f"round {number}, member {key}, {name}",
                )
