"""What launchers and the coordinator say to each other, for themselves and for members."""

from dssync.control.codec import Message, Record
from dssync.control.states import Confirm, LedgerState


class LedgerNews(Message, frozen=True):
    """The coordinator's ledger, for every launcher to keep in case the coordinator is lost."""

    ledger: LedgerState
    put_out: tuple[str, ...] = ()
    """Members that are out of the view and may not know it: others hold their batches."""
    number: int = 0
    """Grows with each copy that a coordinator sends."""
    restarts: int = 0
    """How often the data have begun to count anew in this term."""


class Held(Record, frozen=True):
    """Batches that a member holds: leased and not committed."""

    member: str
    batches: tuple[int, ...]


class Confirmed(Message, frozen=True):
    """A member's confirmation whose decision its launcher has not seen."""

    member: str
    confirm: Confirm


class LedgerReport(Record, frozen=True):
    """What a launcher knows of the data; a new coordinator joins those of all launchers."""

    ledger: LedgerState | None
    committed: tuple[int, ...]
    """Batches of commit records that ``ledger`` does not cover."""
    held: tuple[Held, ...]
    confirmed: tuple[Confirmed, ...]
    provisional: tuple[int, ...] = ()
    """Batches that the launcher gave out itself while nobody led; others may have had them, too."""
    put_out: tuple[str, ...] = ()
    """See ``LedgerNews``."""
    number: int = 0
    """Of the latest news."""
    term: int = 0
    """Whose history this is: of the coordinator that this launcher had the ledger from."""
    restarts: int = 0
    """How often the data had begun to count anew in that term."""
    alone: tuple[Held, ...] = ()
    """Of ``committed``, what members have committed by themselves."""


class Standing(Message, frozen=True):
    """A launcher's own report to a coordinator of a new term."""

    members: tuple[str, ...]
    """Its workers, each of which will report."""
    workers: int
    """How many there are or will be."""
    ledger: LedgerReport


class Hello(Message, frozen=True):
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


class Progress(Record, frozen=True):
    """How far one worker is, as its launcher knows it."""

    member: str
    round: int
    seconds_since_progress: float


class Heartbeat(Message, frozen=True):
    """A launcher is alive; so are its workers, and this is how far they are."""

    workers: tuple[Progress, ...]


class Exited(Message, frozen=True):
    """A worker process is gone; the launcher saw it end."""

    member: str
    code: int
    """Exit code; negative for a signal."""
    restarting: bool
    """A new incarnation of this worker will be started."""


class Drain(Message, frozen=True):
    """The pod was told to go: its members finish their round and leave."""


class FromMember(Message, frozen=True):
    """A member's message, passed on by its launcher."""

    member: str
    body: str


class ToMember(Message, frozen=True):
    """A message for one of the launcher's members."""

    member: str
    body: str


class Evicted(Message, frozen=True):
    """The member is out of the job: end the process if it still lives (restart it or not)."""

    member: str
    reason: str


class PleaseDrain(Message, frozen=True):
    """Somebody wants this launcher to leave, as a signal would."""


class Drained(Message, frozen=True):
    """Nothing of this pod takes part any more."""


class JobCompleted(Message, frozen=True):
    """The job is done; exits from now on are no failures."""
