"""Which communicator serves which list of members.

The id of a communicator is the hash of its members, the term and a build number, so it is never
used with two member lists, over incarnations or again after it was broken. Members keep a
communicator until they are told to retire it, because only the coordinator knows that all of
them agree.
"""

import hashlib
from dataclasses import dataclass


@dataclass
class _Entry:
    id: str
    last_round: int


class Directory:
    """The communicators in use, by their members in rank order."""

    def __init__(self, term: int) -> None:
        self._term = term
        self._builds = 0
        self._entries: dict[tuple[str, ...], _Entry] = {}
        self._members: dict[str, tuple[str, ...]] = {}
        self._retired: dict[str, list[str]] = {}

    def use(self, members: tuple[str, ...], round_number: int) -> str:
        """Return the id of the communicator of ``members``, a new one where none is in use."""
        entry = self._entries.get(members)
        if entry is None:
            entry = self._entries[members] = _Entry(self._new_id(members), round_number)
            self._members[entry.id] = members
        entry.last_round = max(entry.last_round, round_number)
        return entry.id

    def break_(self, members: tuple[str, ...]) -> None:
        """The communicator of ``members`` had an abandoned operation and is not used again."""
        entry = self._entries.pop(members, None)
        if entry is not None:
            del self._members[entry.id]
            for member in members:
                self._retired.setdefault(member, []).append(entry.id)

    def members(self, communicator: str) -> tuple[str, ...]:
        """Return the members of a communicator in use; nobody for one that is broken."""
        return self._members.get(communicator, ())

    def expire(self, before_round: int) -> None:
        """Retire what no round since ``before_round`` has used."""
        stale = [m for m, entry in self._entries.items() if entry.last_round < before_round]
        for members in stale:
            self.break_(members)

    def retired(self, member: str) -> tuple[str, ...]:
        """Return, once, the ids that ``member`` can destroy."""
        return tuple(self._retired.pop(member, ()))

    def forget(self, member: str) -> None:
        """Drop what is kept for a member that is gone."""
        self._retired.pop(member, None)

    def _new_id(self, members: tuple[str, ...]) -> str:
        self._builds += 1
        text = "\n".join((*members, str(self._term), str(self._builds)))
        return hashlib.sha256(text.encode()).hexdigest()[:24]
