"""What people ask a launcher, and what it answers: one request per frame, one answer each.

They travel on the connections of launchers, behind the same handshake. A first byte that no hello
has tells them apart.
"""

from dataclasses import dataclass

from dssync.control.codec import Codec

MARK = b"?"
"""First byte of a connection on which people ask."""


@dataclass(frozen=True)
class AskStatus:
    """How is the job?"""


@dataclass(frozen=True)
class AskDrain:
    """Let the launcher of a slot finish its rounds and leave."""

    slot: int


@dataclass(frozen=True)
class AskKick:
    """End one worker at once; its launcher starts it again if it may."""

    member: str
    """Key, or the beginning ``SLOT.RANK`` of one."""


@dataclass(frozen=True)
class AskScale:
    """Want another number of launchers."""

    desired: int


@dataclass(frozen=True)
class AskLog:
    """What has happened? Lines from one number on."""

    start: int


@dataclass(frozen=True)
class Elsewhere:
    """Ask the coordinator, which is there."""

    address: str


@dataclass(frozen=True)
class Refused:
    """It cannot be done; the sentence says why and what to do."""

    reason: str


@dataclass(frozen=True)
class Accepted:
    """It is under way."""

    what: str


@dataclass(frozen=True)
class Lines:
    """A part of the log."""

    next: int
    """Number to ask from for what comes later."""
    lines: tuple[str, ...]


@dataclass(frozen=True)
class PodStatus:
    """A launcher as the coordinator sees it."""

    slot: int
    node: str
    workers: int
    state: str
    """``connected``, ``lost`` (it may still come back) or ``draining``."""
    heard_seconds: float
    """Since it was last heard."""


@dataclass(frozen=True)
class MemberStatus:
    """A worker as the coordinator sees it."""

    member: str
    phase: str
    """A `roster.Phase`, or ``benched``."""
    round: int
    """Lowest round that it has still to apply; -1 without one."""
    weighted: bool
    """Its values count."""


@dataclass(frozen=True)
class Status:
    """A job at one moment."""

    job: str
    term: int
    coordinator: int
    """Slot of the launcher that coordinates."""
    view: int
    """Sequence of the view; 0 before the first."""
    round: int
    """Lowest round that is not frozen."""
    batches_committed: int
    batches_total: int
    """In all epochs; 0 while nobody has said."""
    completed: bool
    desired: int
    minimum: int
    pods: tuple[PodStatus, ...]
    members: tuple[MemberStatus, ...]


Request = AskStatus | AskDrain | AskKick | AskScale | AskLog
Answer = Elsewhere | Refused | Accepted | Lines | Status

REQUEST = Codec(Request.__args__)
ANSWER = Codec(Answer.__args__)
