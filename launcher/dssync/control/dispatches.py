"""What launchers and the coordinator say to each other, for themselves and for members."""

from dataclasses import dataclass

from dssync.control.states import Confirm, LedgerState


@dataclass(frozen=True)
class LedgerNews:
    """The coordinator's ledger, for every launcher to keep in case the coordinator is lost."""

    ledger: LedgerState


@dataclass(frozen=True)
class Held:
    """Batches that a member holds: leased and not committed."""

    member: str
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Confirmed:
    """A member's confirmation whose decision its launcher has not seen."""

    member: str
    confirm: Confirm


@dataclass(frozen=True)
class LedgerReport:
    """What a launcher knows of the data; a new coordinator joins those of all launchers."""

    ledger: LedgerState | None
    committed: tuple[int, ...]
    """Batches of commit records that ``ledger`` does not cover."""
    held: tuple[Held, ...]
    confirmed: tuple[Confirmed, ...]


@dataclass(frozen=True)
class Standing:
    """A launcher's own report to a coordinator of a new term."""

    members: tuple[str, ...]
    """Its workers, each of which will report."""
    workers: int
    """How many there are or will be."""
    ledger: LedgerReport


@dataclass(frozen=True)
class Hello:
    """A launcher introduces itself after the handshake, also after a reconnect."""

    slot: int
    pod_uid: str
    workers: int
    place: tuple[str, ...]
    """Zone, rack, node."""
    address: str = ""
    """``host:port`` where this launcher listens."""
    process: str = ""
    """See ``takeover.Launcher``."""


@dataclass(frozen=True)
class Progress:
    """How far one worker is, as its launcher knows it."""

    member: str
    round: int
    seconds_since_progress: float


@dataclass(frozen=True)
class Heartbeat:
    """A launcher is alive; so are its workers, and this is how far they are."""

    workers: tuple[Progress, ...]


@dataclass(frozen=True)
class Exited:
    """A worker process is gone; the launcher saw it end."""

    member: str
    code: int
    """Exit code; negative for a signal."""
    restarting: bool
    """A new incarnation of this worker will be started."""


@dataclass(frozen=True)
class Drain:
    """The pod was told to go: its members finish their round and leave."""


@dataclass(frozen=True)
class FromMember:
    """A member's message, passed on by its launcher."""

    member: str
    body: str


@dataclass(frozen=True)
class ToMember:
    """A message for one of the launcher's members."""

    member: str
    body: str


@dataclass(frozen=True)
class Evicted:
    """The member is out of the job: end the process if it still lives (restart it or not)."""

    member: str
    reason: str


@dataclass(frozen=True)
class PleaseDrain:
    """Somebody wants this launcher to leave, as a signal would."""


@dataclass(frozen=True)
class Drained:
    """Nothing of this pod takes part any more."""


@dataclass(frozen=True)
class JobCompleted:
    """The job is done; exits from now on are no failures."""
