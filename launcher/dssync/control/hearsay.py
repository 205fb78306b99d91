"""Commits that a single launcher knows of, told to others before they take values that hold them.

Strict: what a group commits is known to the coordinator and to the launchers of its members until
the next copy of the ledger. If all of them are in one pod, and that is the coordinator's, its end
takes the commit along, though a member may have carried the values into another pod's by then: the
batches would be trained on again, and be twice in what the others hold. So whoever sums with such
a member is told what it brings along, with the commit of that very sum.
"""

from collections.abc import Collection, Iterable

from dssync.control.view import slot_of


class Hearsay:
    """What members bring along, by key, until a copy of the ledger says it to everybody."""

    def __init__(self) -> None:
        self._brought: dict[str, frozenset[int]] = {}

    def commit(self, members: Collection[str], batches: Iterable[int]) -> tuple[int, ...]:
        """Note what a group commits; return what its members bring along."""
        brought = frozenset[int]().union(*(self._brought.pop(key, ()) for key in members))
        if len({slot_of(key) for key in members}) == 1:
            self._brought.update(dict.fromkeys(members, brought.union(batches)))
        return tuple(sorted(brought))

    def holds(self, key: str) -> bool:
        """Tell whether a member's values hold what is known to its pod alone."""
        return key in self._brought

    def covered(self) -> None:
        """Forget everything: each launcher is told the whole ledger first."""
        self._brought.clear()
