"""The multiset of committed samples, from what training loops said and nothing else.

A member says which samples it holds when it enters a round, and which samples a committed round
counted. Whoever was killed between the commit and its report cannot say so. Then a mate may: a
round that one member of a group reports is committed for all of them. If nobody of the group was
left to report, what the dead held stays *open*: committed as a whole or not at all.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Tally:
    """What is known of the samples of a run."""

    committed: Counter[int]
    open: list[Counter[int]]
    """What each member held that died without a witness."""

    def explains(self, expected: Counter[int]) -> bool:
        """Tell whether some of the open ones complete the committed ones exactly."""
        if self.committed - expected:
            return False
        missing = expected - self.committed
        parts = [part for part in self.open if part <= missing]
        return any(
            sum(chosen, Counter()) == missing
            for count in range(len(parts) + 1)
            for chosen in combinations(parts, count)
        )


def tally(lines: list[Line]) -> Tally:
    """Add up what the members of a strict job said."""
    committed: Counter[int] = Counter()
    held: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    witnessed: dict[str, set[int]] = {}
    for line in lines:
        if line["event"] == "step":
            held[line["own"]] = line["pending"]
        elif line["event"] == "round":
            committed.update(line["samples"])
            held.pop(line["own"], None)
            last[line["own"]] = line["round"]
            for mate in line["members"] if line["kind"] == "train" else ():
                witnessed.setdefault(mate, set()).add(line["round"])
    undecided = []
    for member, samples in held.items():
        if any(number > last.get(member, -1) for number in witnessed.get(member, ())):
            committed.update(samples)
        else:
            undecided.append(Counter(samples))
    return Tally(committed, [each for each in undecided if each])
