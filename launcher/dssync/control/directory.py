"""Which communicator serves which list of members.

The id of a communicator is the hash of its members, the term and a build number, so it is never
used with two member lists, over incarnations or again after it was broken. Members keep a
communicator until they are told to retire it, because only the coordinator knows that all of
them agree.
"""

import hashlib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass
class _Entry:
    use: tuple[str, tuple[str, ...]]
    """Purpose and members in rank order."""
    last_round: int


class Directory:
    """The communicators in use."""

    def __init__(self, term: int) -> None:
        self._term = term
        self._builds = 0
        self._ids: dict[tuple[str, tuple[str, ...]], str] = {}
        self._entries: dict[str, _Entry] = {}
        self._retired: dict[str, list[str]] = {}

    def use(self, purpose: str, members: tuple[str, ...], round_number: int) -> str:
        """Return the id of a communicator, a new one where none is in use.

        Args:
            purpose: uses of different purpose share no communicator.
            members: in rank order.
            round_number: of the round that will use it.
        """
        communicator = self._ids.get((purpose, members))
        if communicator is None:
            communicator = self._ids[purpose, members] = self._new_id(members)
            self._entries[communicator] = _Entry((purpose, members), round_number)
        entry = self._entries[communicator]
        entry.last_round = max(entry.last_round, round_number)
        return communicator

    def break_(self, communicator: str) -> None:
        """Never use a communicator again: an operation on it was given up, or a member is gone."""
        entry = self._entries.pop(communicator, None)
        if entry is not None:
            self._close(communicator, entry)
            for member in entry.use[1]:
                self._retired.setdefault(member, []).append(communicator)

    def members(self, communicator: str) -> tuple[str, ...]:
        """Return the members of a communicator in use; nobody for one that is broken."""
        entry = self._entries.get(communicator)
        return () if entry is None else entry.use[1]

    def expire(self, before_round: int) -> None:
        """Retire what no round since ``before_round`` has used."""
        stale = [each for each, entry in self._entries.items() if entry.last_round < before_round]
        for communicator in stale:
            self.break_(communicator)

    def retired(self, member: str) -> tuple[str, ...]:
        """Return, once, the ids that ``member`` can destroy."""
        return tuple(self._retired.pop(member, ()))

    def forget(self, member: str, in_use: AbstractSet[str]) -> None:
        """Let no later round use what a member that is gone had a part in.

        Args:
            member: it may come back, but it has given its communicators up.
            in_use: what open exchanges use; their members keep it until it expires.
        """
        shared = [(c, entry) for c, entry in self._entries.items() if member in entry.use[1]]
        for communicator, entry in shared:
            self._close(communicator, entry)
            if communicator not in in_use:
                self.break_(communicator)
        self._retired.pop(member, None)

    def _close(self, communicator: str, entry: _Entry) -> None:
        if self._ids.get(entry.use) == communicator:
            del self._ids[entry.use]

    def _new_id(self, members: tuple[str, ...]) -> str:
        self._builds += 1
        text = "\n".join((*members, str(self._term), str(self._builds)))
        return hashlib.sha256(text.encode()).hexdigest()[:24]
