"""What people ask a launcher, and what it answers: one request per frame, one answer each.

They travel on the connections of launchers, behind the same handshake. A first byte that no hello
has tells them apart.
"""

from dssync.control.codec import Codec, Message, Record

MARK = b"?"
"""First byte of a connection on which people ask."""


class AskStatus(Message, frozen=True):
    """How is the job?"""


class AskDrain(Message, frozen=True):
    """Let the launcher of a slot finish its rounds and leave."""

    slot: int


class AskKick(Message, frozen=True):
    """End one worker at once; its launcher starts it again if it may."""

    member: str
    """Key, or the beginning ``SLOT.RANK`` of one."""


class AskScale(Message, frozen=True):
    """Want another number of launchers."""

    desired: int


class AskLog(Message, frozen=True):
    """What has happened? Lines from one number on."""

    start: int


class Elsewhere(Message, frozen=True):
    """Ask the coordinator, which is there."""

    address: str


class Refused(Message, frozen=True):
    """It cannot be done; the sentence says why and what to do."""

    reason: str


class Accepted(Message, frozen=True):
    """It is under way."""

    what: str


class Lines(Message, frozen=True):
    """A part of the log."""

    next: int
    """Number to ask from for what comes later."""
    lines: tuple[str, ...]


class PodStatus(Record, frozen=True):
    """A launcher as the coordinator sees it."""

    slot: int
    node: str
    workers: int
    state: str
    """``connected``, ``lost`` (it may still come back) or ``draining``."""
    heard_seconds: float
    """Since it was last heard."""


class MemberStatus(Record, frozen=True):
    """A worker as the coordinator sees it."""

    member: str
    phase: str
    """A `roster.Phase`, or ``benched``."""
    round: int
    """Lowest round that it has still to apply; -1 without one."""
    weighted: bool
    """Its values count."""


class Status(Message, frozen=True):
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

REQUEST: Codec[Request] = Codec(Request.__args__)
ANSWER: Codec[Answer] = Codec(Answer.__args__)
