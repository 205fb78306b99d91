"""The multiset of committed samples, from what training loops said and nothing else.

A member says which samples it holds when it enters a round, and which samples a committed round
counted. Whoever was killed between the commit and its report cannot say so. Then a mate may: a
round that one member of a group reports is committed for all of them, also for one that was frozen
in it, put out, and has entered again. If nobody of the group was left to report, what the others
held stays *open*: committed as a whole or not at all.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

Line = dict[str, Any]
Part = frozenset[tuple[Hashable, int]]
"""Samples, and how many of each."""


@dataclass(frozen=True)
class Tally:
    """What is known of the samples of a run, or of its batches."""

    committed: Counter[Hashable]
    open: list[Counter[Hashable]]
    """What each member held that died without a witness."""

    def explains(self, expected: Counter[Hashable]) -> bool:
        """Tell whether some of the open ones complete the committed ones exactly."""
        if self.committed - expected:
            return False
        parts = Counter(frozenset(part.items()) for part in self.open)
        return _covers(expected - self.committed, parts)


def _covers(missing: Counter[Hashable], parts: Counter[Part]) -> bool:
    """Tell whether some of the parts make up exactly what is missing."""
    missing, parts = missing.copy(), parts.copy()
    holders: dict[Hashable, list[Part]] = defaultdict(list)
    for part in parts:
        for item, _ in part:
            holders[item].append(part)
    for item in list(missing):
        while missing[item]:
            fits = [
                part
                for part in holders[item]
                if parts[part] and all(missing[each] >= count for each, count in part)
            ]
            if len(fits) != 1:
                return any(_covers(missing - Counter(dict(f)), parts - Counter([f])) for f in fits)
            missing.subtract(dict(fits[0]))
            parts[fits[0]] -= 1
    return True


def tally(lines: list[Line]) -> Tally:
    """Add up what the members of a strict job said."""
    committed: Counter[Hashable] = Counter()
    last: dict[str, int] = {}
    held: dict[str, list[Hashable]] = {}
    put_down: list[tuple[str, list[Hashable], range]] = []
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
