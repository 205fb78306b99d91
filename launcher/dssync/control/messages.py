"""What coordinator, launchers and members say to each other.

Three roads, each with its own closed list of messages:

* a **member** (worker process) talks to the coordinator through its launcher, which passes the
  bytes on unread: ``MEMBER``;
* the coordinator answers a member on the same road: ``TO_MEMBER``;
* a **launcher** speaks for itself and its processes: ``LAUNCHER`` and ``TO_LAUNCHER``.

A member is named by its key (``slot.local_rank.incarnation``); communicators by the hash of
their members, term and build. ``attempt`` counts the retries of one round in one group.
"""

from dssync.control.codec import Codec, Message, Record
from dssync.control.dispatches import (
    Confirmed as Confirmed,
    Drain as Drain,
    Drained as Drained,
    Evicted as Evicted,
    Exited as Exited,
    FromMember as FromMember,
    Heartbeat as Heartbeat,
    Held as Held,
    Hello as Hello,
    JobCompleted as JobCompleted,
    LedgerNews as LedgerNews,
    LedgerReport as LedgerReport,
    PleaseDrain as PleaseDrain,
    Progress as Progress,
    Standing as Standing,
    ToMember as ToMember,
)
from dssync.control.states import (
    Confirm as Confirm,
    LedgerState as LedgerState,
    SyncSettings as SyncSettings,
    TrackState as TrackState,
    ViewLine as ViewLine,
)
from dssync.control.takeover import (
    Adopt,
    Launchers,
    NewTerm,
    NobodyLeads,
    Report,
    Succeed,
)

# --- member to coordinator ------------------------------------------------------------------


class Enter(Message, frozen=True):
    """A worker is up and asks to take part (hello)."""

    model: tuple[str, ...]
    """One line ``name dtype shape`` for each averaged tensor, in bucket order; then the strides of
    one that is not contiguous."""
    sync: SyncSettings
    state_address: str
    """``host:port`` where this worker streams its state to a joiner."""
    applied_round: int = -1
    """The last round in the state that it holds; -1 for a fresh process or spoiled values."""
    resumes: bool = False
    """It can read checkpoints."""
    generation: int = 0
    """How often it has entered before."""


class Loaded(Message, frozen=True):
    """A joiner holds its donor's state and can be admitted."""

    donor: str


class FetchFailed(Message, frozen=True):
    """A joiner could not get the state of this donor and wants another."""

    donor: str
    reason: str


class Arrive(Message, frozen=True):
    """A member has staged its values and waits for its mates or starts the operation."""

    round: int
    attempt: int
    idle: bool
    """It trained on nothing since the last round, so its arrival starts no deadline."""
    building: bool = False
    """Its communicator is not built yet; another arrival follows when it is."""


class Applied(Message, frozen=True):
    """The member has applied the result of this attempt."""

    round: int
    attempt: int
    batches: tuple[int, ...]
    """Batches consumed since its last committed round; they are committed with this one. Empty
    after a strict decision, which has committed them."""


class Abandoned(Message, frozen=True):
    """The member has given this attempt up without applying anything."""

    round: int
    attempt: int


class Failed(Message, frozen=True):
    """An operation or a build of this attempt ended in an error at this member."""

    round: int
    attempt: int
    reason: str


class Blob(Message, frozen=True):
    """Rendezvous data of a communicator under construction, for all its other members."""

    communicator: str
    key: str
    value: str
    """Base64."""


class Track(Record, frozen=True):
    """The data of one loader."""

    name: str
    batches_per_epoch: int


class Register(Message, frozen=True):
    """The data of the job: how many batches an epoch has, and how many epochs there are."""

    tracks: tuple[Track, ...]
    epochs: int


class Take(Message, frozen=True):
    """Asks for leases on this many batches of one track."""

    count: int
    track: int
    """Index in ``Register``."""


class Moments(Message, frozen=True):
    """What of its optimizer's state a member can average; said when that changes."""

    layout: str
    """Digest of names, types and shapes."""


class AskFlush(Message, frozen=True):
    """Asks for a flush; the coordinator appoints its round."""


class AskStop(Message, frozen=True):
    """Asks for an early end of training for everybody."""


class Resumed(Message, frozen=True):
    """Answers ``Resume``: the member holds a checkpoint's state, or there was none to use."""

    ledger: LedgerState | None


class AskLedger(Message, frozen=True):
    """Asks for the ledger as it is after this round of the member, for a checkpoint."""

    round: int


class AskPublish(Message, frozen=True):
    """Asks whether the coordinator still leads, before a checkpoint of this round is published."""

    round: int


class Leave(Message, frozen=True):
    """The member leaves the job; nothing it still holds will be committed."""

    reason: str


# --- coordinator to member ------------------------------------------------------------------


class Refuse(Message, frozen=True):
    """The member cannot take part; the sentence says why and what to do."""

    sentence: str


class Fetch(Message, frozen=True):
    """Get the training state from this donor, then answer ``Loaded``."""

    donor: str
    address: str


class Resume(Message, frozen=True):
    """Nobody holds a state: read the newest whole checkpoint, then answer ``Resumed``."""


class LedgerCopy(Message, frozen=True):
    """The ledger that goes into a checkpoint of this round.

    The member that speaks for the job gets it with every flush: at that moment every committed
    batch is in the mean that all hold.
    """

    round: int
    ledger: LedgerState
    term: int
    views: tuple[ViewLine, ...]
    """The last ones, the newest last."""


class MayPublish(Message, frozen=True):
    """The coordinator of this term leads: the checkpoint of this round may be published."""

    round: int
    term: int


class Start(Message, frozen=True):
    """The member is admitted; its first round is ``round``."""

    round: int
    position: int
    """Place in the view when it was admitted; 0 is the first."""
    weighted: bool
    """Whether its values count; those of a joiner do after its first committed round."""
    generation: int = 0
    """That of the hello that it answers: what was meant for an earlier one may still arrive."""


class Stage(Record, frozen=True):
    """One all-reduce of a round: scale by ``weight``, then sum over ``members``."""

    communicator: str
    members: tuple[str, ...]
    """Member keys in rank order."""
    weight: float


class Assign(Message, frozen=True):
    """What one member does in one attempt of one round of one frozen view."""

    round: int
    attempt: int
    kind: str
    """``train``, ``flush``, ``final`` (the flush that ends training) or ``suspend`` (the flush of a
    view that drains as a whole)."""
    strict: bool
    stages: tuple[Stage, ...]
    """In order, without training in between; empty: keep the values (solo)."""
    retire: tuple[str, ...]
    """Communicators of this member that no later round will use."""
    world_size: int
    view: int
    """Sequence of the frozen view."""
    first: str
    """Key of the member that speaks for the job (writes results, logs)."""
    cause: str
    """Why there is a retry: ``exit``, ``eof``, ``lease``, ``deadline``, ``leave``, ``failed``."""
    weighted: bool
    """Whether the member's values count. While they do not it trains on nothing: its first sum
    would replace what it had learned, and the samples would be lost."""
    progress: float
    """Committed fraction of the run when the round was frozen, 0 to 1."""
    period: int = 1
    """Rounds after which the groups of this view repeat; see ``control.provisional``."""
    moments: str = ""
    """Layout of the optimizer's state that is averaged as well, as all members have told it."""


class Abandon(Message, frozen=True):
    """Give this attempt up unless it is applied; answer ``Abandoned`` or ``Applied``."""

    round: int
    attempt: int


class Commit(Message, frozen=True):
    """Strict commit: every member of the attempt confirmed; apply it."""

    round: int
    attempt: int
    batches: tuple[int, ...]
    """What the decision commits, of the whole group: each launcher keeps it until a ledger that
    covers it arrives (``control.records``)."""
    earlier: tuple[int, ...] = ()
    """Committed before by members of the group, and known to nobody else (``control.hearsay``)."""


class Skip(Message, frozen=True):
    """The round went on without this member: keep the values, continue with ``next_round``."""

    round: int
    next_round: int


class Bench(Message, frozen=True):
    """The member is out of the view until it asks to return by ``Enter``."""

    reason: str


class Leases(Message, frozen=True):
    """Batches to train on; none: all are leased or done, more come if a member is lost."""

    track: int
    batches: tuple[int, ...]


class LastRound(Message, frozen=True):
    """The member is draining: ``round`` is the last one it takes part in."""

    round: int


class Completed(Message, frozen=True):
    """Training is over and the final flush is committed."""

    samples_repeated: int


FromMemberBody = (
    Enter | Loaded | FetchFailed | Arrive | Confirm | Applied | Abandoned | Failed | Blob
    | Register | Take | Moments | AskFlush | AskStop | Resumed | AskLedger | AskPublish | Leave
    | Report
)  # fmt: skip
ToMemberBody = (
    Refuse | Fetch | Start | Assign | Abandon | Commit | Skip | Bench | Leases | LastRound
    | Completed | Resume | LedgerCopy | MayPublish | Blob | NewTerm | NobodyLeads | Adopt
)  # fmt: skip
FromLauncher = Hello | Heartbeat | Exited | Drain | FromMember | Standing
ToLauncher = (
    ToMember | Evicted | PleaseDrain | Drained | JobCompleted | LedgerNews | Launchers | Succeed
)

MEMBER: Codec[FromMemberBody] = Codec(FromMemberBody.__args__)
TO_MEMBER: Codec[ToMemberBody] = Codec(ToMemberBody.__args__)
LAUNCHER: Codec[FromLauncher] = Codec(FromLauncher.__args__)
TO_LAUNCHER: Codec[ToLauncher] = Codec(ToLauncher.__args__)
