"""What happens to a coordinator, what it wants done, and its settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from dssync.control import messages as m
from dssync.control.deadline import DeadlineSettings


@dataclass(frozen=True)
class ControlSettings:
    """Numbers of the control plane."""

    desired: int
    """Pods wanted; the first world forms at once when they are there."""
    minimum: int
    """Pods below which no round is frozen."""
    join_window_seconds: float = 5.0
    """The first world does not wait longer than this for more than the minimum."""
    reconnect_seconds: float = 0.2
    """Time for a launcher to come back after its connection ended."""
    lease_seconds: float = 2.0
    """A launcher that was not heard for this long is gone."""
    bench_after_misses: int = 3
    hang_seconds: float = 600.0
    """A member that says nothing for this long while others wait for it, without a deadline, is put
    out."""
    together_seconds: float = 1.0
    """Longest wait of a joiner for others of its pod that fetch the state: each change of the view
    makes new groups of all members, so that a pod's workers had better come in one."""
    hello_seconds: float = 0.1
    """Longest wait of a joiner for others of its pod that have not even said hello: they start
    side by side, so that a worker that is later than this has met with something."""
    ahead_seconds: float = 0.1
    """Rounds that follow each other faster are frozen two ahead and not one: else members wait
    for the coordinator between them. It delays joiners and leavers by no more than this."""
    any_side: bool = False
    """Go on without the arbiter while launchers are missing (``--quorum any``)."""
    deadline: DeadlineSettings = field(default_factory=DeadlineSettings)


# --- what happens to a coordinator ----------------------------------------------------------


@dataclass(frozen=True)
class Connected:
    """A launcher's connection passed the handshake and said hello."""

    hello: m.Hello
    resumed: bool = False
    """Its session goes on, so that nothing that was sent before is lost."""


@dataclass(frozen=True)
class Disconnected:
    """A launcher's connection ended."""

    slot: int
    pod_uid: str


class Received(msgspec.Struct, frozen=True, gc=False):
    """A launcher said something. A struct, for there is one of it for each message."""

    slot: int
    message: m.FromLauncher


@dataclass(frozen=True)
class Resized:
    """The arbiter's record asks for another number of pods."""

    desired: int
    minimum: int


@dataclass(frozen=True)
class Placed:
    """The arbiter's record says where nodes stand."""

    paths: Mapping[str, str]
    """Name of a node to its path, such as ``zone-a/rack-7``."""


@dataclass(frozen=True)
class Ticked:
    """Time went by."""


@dataclass(frozen=True)
class Looked:
    """The arbiter was read and names this coordinator."""

    age_seconds: float = 0.0
    """Since it was asked, by a clock that stands never still."""


@dataclass(frozen=True)
class ExitsConfirmed:
    """Launchers have ended for certain."""

    uids: tuple[str, ...]


@dataclass(frozen=True)
class Resigning:
    """Another launcher is to take over: start nothing new."""

    wanted: bool = True
    """False where nobody takes over: go on."""


@dataclass(frozen=True)
class Recorded:
    """The arbiter's record says that the job is done, or could not be made to say so in time."""


@dataclass(frozen=True)
class Paused:
    """This coordinator stood still, so long that its clock did."""

    seconds: float = math.inf


Event = (
    Connected | Disconnected | Received | Resized | Placed | Ticked | Looked | ExitsConfirmed
    | Paused | Recorded | Resigning
)  # fmt: skip


# --- what a coordinator wants ---------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a message to the launcher of a slot. A struct, as `Received`."""

    slot: int
    message: m.ToLauncher


@dataclass(frozen=True)
class Note:
    """Something that people and metrics want to know."""

    kind: str
    """``join``, ``leave``, ``evict``, ``reform``, ``round``, ``completed``, ``restarted_job``,
    ``adopted``, ``holding``, ``going_on``."""
    member: str = ""
    cause: str = ""
    seconds: float = 0.0
    round: int = 0
    counts: str = ""
    """At completion: batches committed, in total and repeated, as ``name=value`` words."""


Effect = Send | Note
