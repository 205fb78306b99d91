"""The multiset of committed samples, from what training loops said and nothing else.

A member says which samples it holds when it enters a round, and which samples a committed round
counted. Whoever was killed between the commit and its report cannot say so. Then a mate may: a
round that one member of a group reports is committed for all of them, also for one that was frozen
in it, put out, and has entered again. If nobody of the group was left to report, what the others
held stays *open*: committed as a whole or not at all. So does what a member held of whom it is not
known whose group it was in.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = dict[str, Any]
Part = frozenset[tuple[Hashable, int]]
"""Samples, and how many of each."""


@dataclass(frozen=True)
class Trial:
    """A member's values, and with them its samples, went into an attempt of a round."""

    round: int
    mates: frozenset[str]
    """Who can tell whether it counted: if one of them ends that round in another attempt, it did
    not."""


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


def tally(lines: Sequence[Line], trials: Mapping[str, Sequence[Trial]] | None = None) -> Tally:
    """Add up what the members of a strict job said.

    Args:
        lines: what they said, in order. A round without samples and members is one that may not
            have counted.
        trials: those of each member; None: nobody knows.
    """
    committed: Counter[Hashable] = Counter()
    last: dict[str, int] = {}
    held: dict[str, list[Hashable]] = {}
    put_down: list[tuple[str, list[Hashable], range]] = []
    """Members, what they held, and the rounds in which that may have been committed."""
    undecided: list[list[Hashable]] = []
    witnessed: dict[str, set[int]] = defaultdict(set)
    told: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        own = line["own"]
        if line["event"] == "step":
            held[own] = line["pending"]
        elif line["event"] == "round":
            committed.update(line["samples"])
            unanswered = held.pop(own, [])
            if not line["members"]:
                undecided.append(unanswered)
            elif not line["samples"]:
                # It was put out meanwhile, and entered again with nothing.
                put_down.append((own, unanswered, range(last.get(own, -1) + 1, line["round"])))
            last[own] = line["round"]
            if line["kind"] == "train" and line["members"]:
                told[own].add(line["round"])
                for mate in line["members"]:
                    witnessed[mate].add(line["round"])
    for own, samples in held.items():
        put_down.append((own, samples, range(last.get(own, -1) + 1, sys.maxsize)))
    for own, samples, rounds in put_down:
        if any(number in rounds for number in witnessed[own]):
            committed.update(samples)
        elif trials is None or _may_count(trials.get(own, ()), rounds, told):
            undecided.append(samples)
    return Tally(committed, [Counter(each) for each in undecided if each])


def _may_count(trials: Sequence[Trial], rounds: range, told: Mapping[str, set[int]]) -> bool:
    """Tell whether one of a member's trials in some rounds was refuted by none of its mates."""
    return any(
        not any(trial.round in told.get(mate, ()) for mate in trial.mates)
        for trial in trials
        if trial.round in rounds
    )
