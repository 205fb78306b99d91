"""What the coordinator knows of each launcher and each worker process."""

from dataclasses import dataclass, field
from enum import Enum

from dssync.control.messages import SyncSettings
from dssync.control.view import Member
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


@dataclass
class Pod:
    """A launcher and its place."""

    slot: int
    uid: str
    workers: int
    place: Place
    heard_seconds: float
    lost_seconds: float | None = None
    """When its connection ended; it may still come back."""
    draining: bool = False


@dataclass
class Peer:
    """A worker process that said hello."""

    member: Member
    model: tuple[str, ...]
    sync: SyncSettings
    address: str
    phase: Phase = Phase.ENTERED
    donor: str = ""
    hungry: int = 0
    """Batches it asked for and did not get."""
    misses: int = 0
    """Round deadlines missed in a row."""
    admitted_round: int = 0
    last_round: int | None = None
    """Draining: the last round it takes part in."""


@dataclass
class Roster:
    """Launchers by slot, workers by key."""

    pods: dict[int, Pod] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)

    def of_slot(self, slot: int) -> list[str]:
        """Return the keys of the workers of one pod."""
        return [key for key, peer in self.peers.items() if peer.member.slot == slot]

    def in_phase(self, *phases: Phase) -> list[str]:
        """Return the keys of the workers in any of ``phases``, by slot and local rank."""
        found = [key for key, peer in self.peers.items() if peer.phase in phases]
        return sorted(found, key=lambda key: self.peers[key].member)

    def slots_in(self, *phases: Phase) -> set[int]:
        """Return the slots with at least one worker in any of ``phases``."""
        return {self.peers[key].member.slot for key in self.in_phase(*phases)}

    def complete_slots(self) -> set[int]:
        """Return the slots all of whose workers said hello and are not leaving."""
        present = [s for s in self.pods if not self.pods[s].draining]
        return {s for s in present if len(self.of_slot(s)) >= self.pods[s].workers}
