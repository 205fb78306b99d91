"""The multiset of committed samples, from what training loops said and nothing else.

A member says which samples it holds when it enters a round, and which samples a committed round
counted. Whoever was killed between the commit and its report cannot say so. Then a mate may: a
round that one member of a group reports is committed for all of them, also for one that was frozen
in it, put out, and has entered again. If nobody of the group was left to report, what the others
held stays *open*: committed as a whole or not at all.
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
    last: dict[str, int] = {}
    held: dict[str, list[int]] = {}
    put_down: list[tuple[str, list[int], range]] = []
    """Members, what they held, and the rounds in which that may have been committed."""
    witnessed: dict[str, set[int]] = {}
    for line in lines:
        own = line["own"]
        if line["event"] == "step":
            held[own] = line["pending"]
        elif line["event"] == "round":
            committed.update(line["samples"])
            unanswered = held.pop(own, [])
            if not line["samples"]:
                # It was put out meanwhile, and entered again with nothing.
                put_down.append((own, unanswered, range(last.get(own, -1) + 1, line["round"])))
            last[own] = line["round"]
            for mate in line["members"] if line["kind"] == "train" else ():
                witnessed.setdefault(mate, set()).add(line["round"])
    for own, samples in held.items():
        seen = max(witnessed.get(own, {-1}))
        put_down.append((own, samples, range(last.get(own, -1) + 1, seen + 1)))
    undecided = []
    for own, samples, rounds in put_down:
        if witnessed.get(own, set()).intersection(rounds):
            committed.update(samples)
        else:
            undecided.append(Counter(samples))
    return Tally(committed, [each for each in undecided if each])
