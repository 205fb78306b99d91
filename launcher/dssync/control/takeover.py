"""What is said when a job gets another coordinator.

A new coordinator knows nothing. Each launcher that links to it tells its workers of the new term;
each worker answers with a `Report` of where it stands, and sends nothing of an earlier term after
it. Who reported in time is adopted and goes on in place; who did not enters again.
"""

from dssync.control.codec import Message, Record


class Launcher(Record, frozen=True):
    """Where a launcher listens, and which process it is."""

    slot: int
    uid: str
    address: str
    """``host:port``."""
    process: str
    """Machine, process id and start time; tells, on that machine, whether it has ended."""


# --- launcher to coordinator and back -------------------------------------------------------


class Launchers(Message, frozen=True):
    """The launchers of the current view: who may become coordinator, and whom to ask."""

    launchers: tuple[Launcher, ...]
    missing: tuple[Launcher, ...] = ()
    """Who was lost, has not ended for certain and may follow somebody else: the coordinator of the
    next term misses them, too."""


class Succeed(Message, frozen=True):
    """The coordinator leaves and wants this launcher to take its place."""

    term: int
    """The term that ends."""


# --- to a member and back -------------------------------------------------------------------


class NewTerm(Message, frozen=True):
    """The launcher is linked to the coordinator of this term; answer with a `Report`."""

    term: int


class NobodyLeads(Message, frozen=True):
    """The coordinator is lost and the arbiter out of reach; repeated for as long as that lasts."""


class Verdict(Record, frozen=True):
    """An attempt of a strict round that is committed."""

    round: int
    attempt: int
    batches: tuple[int, ...]
    """What of the member's is committed with it; its launcher keeps it as a commit record."""


class Adopt(Message, frozen=True):
    """The member keeps its state under the new term; its first round there is ``round``.

    What it has open below that round is over, as if it had been skipped, but for ``commits``.
    """

    round: int
    position: int
    weighted: bool
    commits: tuple[Verdict, ...]


class Vote(Record, frozen=True):
    """What a member knows of one attempt of a strict round."""

    round: int
    attempt: int
    kind: str
    mates: tuple[str, ...]
    """Who is in a stage with it, itself included."""
    decided: bool
    """It has applied the attempt or was told to; otherwise it has confirmed."""
    batches: tuple[int, ...]
    """What its confirmation commits, if that is all it knows."""


class Report(Message, frozen=True):
    """Where a member stands, for the coordinator of a new term."""

    term: int
    """The new one."""
    member_since: int
    """The term in which it was admitted or adopted last; 0 for never."""
    enter: str
    """Its hello, encoded; empty if it has not said it or was put out of the view."""
    started: bool
    next_round: int
    known_round: int
    """The highest round that it has an assignment for."""
    applied_round: int
    weighted: bool
    last_round: int | None
    """Draining: the last round that it takes part in."""
    votes: tuple[Vote, ...]
    donor: str
    """Whose state a joiner holds; empty if it has none yet."""
    register: str
    """What it said of the data, encoded; empty before that."""
    takes: tuple[str, ...]
    """Its requests for batches that were not answered with any, encoded."""
    flush_asked: bool
    stop_asked: bool
    completed: bool
    moments: str = ""
    """What of its optimizer's state it can average; see `messages.Moments`."""
