"""What the coordinator knows of each launcher and each worker process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from dssync.control.messages import Enter, Progress, SyncSettings, Take
from dssync.control.places import located
from dssync.control.takeover import Launcher
from dssync.control.view import Member, slot_of
from dssync.schedule import Place


class Phase(Enum):
    """Where a member is on its way in or out."""

    ENTERED = "entered"
    """Said hello; waits for the world to form or for a donor."""
    FETCHING = "fetching"
    """Was sent to a donor."""
    LOADED = "loaded"
    """Holds state; waits for the rest of the first world."""
    ACTIVE = "active"
    """In the view."""
    DRAINING = "draining"
    """Out of the view; finishes the rounds that were frozen with it."""


@dataclass(slots=True)
class Pod:
    """A launcher and where it runs."""

    slot: int
    uid: str
    workers: int
    """How many there will be: those that end for good no longer count."""
    place: Place
    """As it announced it."""
    heard_seconds: float
    lost_seconds: float | None = None
    """When its connection ended; it may still come back."""
    draining: bool = False
    address: str = ""
    process: str = ""
    progress: tuple[Progress, ...] = ()
    """Of its workers, as its last heartbeat told."""

    def silent_seconds(self, key: str) -> float:
        """Return how long a worker had said nothing at the last heartbeat."""
        told = (each.seconds_since_progress for each in self.progress if each.member == key)
        return next(told, 0.0)

    @property
    def leaves(self) -> bool:
        """Whether nothing is left of it but to end: it has drained, and its workers have ended."""
        return self.draining and self.workers <= 0

    @property
    def launcher(self) -> Launcher:
        """What the other launchers know of it."""
        return Launcher(self.slot, self.uid, self.address, self.process)


@dataclass(slots=True)
class Peer:
    """A worker process that said hello."""

    member: Member
    model: tuple[str, ...]
    sync: SyncSettings
    address: str
    applied_round: int = -1
    """The last round in the state that it brought; -1 for a fresh process."""
    resumes: bool = False
    """It can read checkpoints."""
    moments: str = ""
    """What of its optimizer's state it can average; see `messages.Moments`."""
    generation: int = 0
    """How often it had entered before."""
    phase: Phase = Phase.ENTERED
    donor: str = ""
    loaded_seconds: float = -math.inf
    """When it got a donor's state."""
    avoid: str = ""
    """The donor whose state it could not get."""
    hungry: dict[int, Take] = field(default_factory=dict)
    """What it asked for and did not get, by track."""
    misses: int = 0
    """Round deadlines missed in a row."""

    @classmethod
    def of(cls, key: str, hello: Enter) -> "Peer":
        """Return a worker as it introduces itself."""
        return cls(
            Member.parse(key),
            hello.model,
            hello.sync,
            hello.state_address,
            hello.applied_round,
            hello.resumes,
            generation=hello.generation,
        )


class Roster:
    """Launchers by slot, workers by key, indexed by slot and phase."""

    def __init__(self) -> None:
        self.pods: dict[int, Pod] = {}
        self.peers: dict[str, Peer] = {}
        self.benched: set[str] = set()
        """Workers that were told that they are out of the view and have not come back."""
        self.paths: Mapping[str, str] = {}
        """Where nodes stand, by name, as far as the arbiter's record says."""
        self._by_slot: dict[int, dict[str, None]] = {}
        self._by_phase: dict[Phase, dict[str, None]] = {phase: {} for phase in Phase}

    def add(self, key: str, peer: Peer) -> None:
        """Add a worker."""
        self.peers[key] = peer
        self._by_slot.setdefault(peer.member.slot, {})[key] = None
        self._by_phase[peer.phase][key] = None

    def move(self, key: str, phase: Phase) -> None:
        """Note that a worker is in another phase."""
        peer = self.peers[key]
        del self._by_phase[peer.phase][key]
        peer.phase = phase
        self._by_phase[phase][key] = None

    def remove(self, key: str) -> Peer | None:
        """Remove a worker and return it; whoever fetches from it needs another donor."""
        peer = self.peers.pop(key, None)
        if peer is None:
            return None
        del self._by_slot[peer.member.slot][key], self._by_phase[peer.phase][key]
        for other in self.in_phase(Phase.FETCHING):
            if self.peers[other].donor == key:
                self.move(other, Phase.ENTERED)
        return peer

    def remove_pod(self, slot: int) -> None:
        """Remove a launcher; its workers are removed one by one."""
        del self.pods[slot]
        self.benched = {key for key in self.benched if slot_of(key) != slot}

    def place_of(self, key: str) -> Place:
        """Return where a worker runs."""
        return located(self.pods[self.peers[key].member.slot].place, self.paths)

    def of_slot(self, slot: int) -> list[str]:
        """Return the keys of the workers of one pod."""
        return list(self._by_slot.get(slot, ()))

    def in_phase(self, *phases: Phase) -> list[str]:
        """Return the keys of the workers in any of ``phases``, by slot and local rank."""
        found = [key for phase in phases for key in self._by_phase[phase]]
        return found and sorted(found, key=lambda key: self.peers[key].member)

    def count(self, phase: Phase) -> int:
        """Return how many workers are in ``phase``."""
        return len(self._by_phase[phase])

    def slots_in(self, phase: Phase) -> set[int]:
        """Return the slots with at least one worker in ``phase``."""
        return {self.peers[key].member.slot for key in self._by_phase[phase]}

    def complete_slots(self) -> set[int]:
        """Return the slots all of whose workers said hello and are not leaving."""
        return {s for s in self.pods if not self.pods[s].draining and self.is_complete(s)}

    def is_complete(self, slot: int) -> bool:
        """Tell whether all workers of a pod said hello."""
        return len(self.of_slot(slot)) >= max(1, self.pods[slot].workers)
