"""The view log: what every member of a job did, in an order that lets the job be run again.

A log is a file of JSON lines, one record each. Members write their own records, because only they
know what they drew, summed and applied; the coordinator's launcher adds the views. A record is
written *before* what it tells can be seen by anybody else: a member notes an attempt before its
values go into a sum, so that a mate that has applied the sum can be explained, whoever was killed
meanwhile. Several processes append to one file, a line with one write; logs of several pods can be
put one after the other, since the order of records matters within a member only.

What is drawn, kept in ``drawn``, goes with the next record of the member.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from dssync.control.codec import Codec, Message, Record
from dssync.control.messages import Assign
from dssync.control.states import SyncSettings
from dssync.errors import ProtocolError, ReplayError

FORMAT: Final = 3
PASS_ENDS: Final = -1
"""In place of a batch: there was none to draw."""
CHECKPOINT: Final = "checkpoint:"
"""Begins a source that is a folder and no member."""


class Point(Record, frozen=True):
    """A moment in the life of a member at which nothing trains."""

    generation: int
    """How often it had entered again."""
    steps: int
    """Optimizer steps in this process."""
    round: int
    """The last round applied; -1 before the first."""


class Draw(Record, frozen=True):
    """A batch that a loader was given."""

    track: int
    batch: int
    """Its number, or ``PASS_ENDS``."""


class Life(Message, frozen=True):
    """A worker process has built its ``GroupSync``."""

    member: str
    format: int
    sync: SyncSettings
    workers: int
    """Of its launcher."""
    environment: tuple[str, ...]
    """``NAME=VALUE`` of the variables that tell workers apart."""


class Viewed(Message, frozen=True):
    """The coordinator has made a view."""

    term: int
    sequence: int
    members: tuple[str, ...]
    unweighted: tuple[str, ...]


class Entered(Message, frozen=True):
    """A member has come in, or come in again."""

    member: str
    generation: int
    source: str
    """Key of the donor whose state it took, ``checkpoint:PATH``, or empty: its own."""
    taken: Point | None
    """When the donor took the copy."""
    first_round: int
    drawn: tuple[Draw, ...]


class Donated(Message, frozen=True):
    """A member has taken a copy of its state for joiners."""

    member: str
    point: Point
    drawn: tuple[Draw, ...]


class Attempt(Message, frozen=True):
    """A member's values go into an attempt."""

    member: str
    term: int
    idle: bool
    """It had trained on nothing since its last round."""
    total: str
    """Sum of all values that it staged, in hexadecimal: tells where a replay departs."""
    assign: Assign
    drawn: tuple[Draw, ...]


class Applied(Message, frozen=True):
    """A member has applied an attempt."""

    member: str
    round: int
    attempt: int


class Skipped(Message, frozen=True):
    """A round that a member was to take part in went on without it."""

    member: str
    round: int
    idle: bool
    """It had trained on nothing since its last round."""
    drawn: tuple[Draw, ...]


class Saved(Message, frozen=True):
    """A checkpoint was published."""

    member: str
    round: int
    path: str


class Left(Message, frozen=True):
    """A member has left, for a while or for good."""

    member: str
    over: bool
    """It trains no further: the job is done, or it was told to go."""
    digest: str
    """SHA-256 of its averaged tensors; empty if it is not over."""
    drawn: tuple[Draw, ...]


Told = Life | Viewed | Entered | Donated | Attempt | Applied | Skipped | Saved | Left
RECORDS: Final = Codec(Told.__args__)


def line_of(record: Told) -> bytes:
    """Return a record as it is written."""
    return RECORDS.encode(record) + b"\n"


def records_in(lines: Iterable[bytes], name: str) -> Iterator[Told]:
    """Yield the records of a log; what a crash has cut off at its end is passed over.

    Args:
        lines: of the file, with their ends.
        name: of the file, for messages.

    Raises:
        ReplayError: a line is no record, or of another version.
    """
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        try:
            record = RECORDS.decode(line)
        except ProtocolError as error:
            raise ReplayError(
                f"line {number} of {name} is no record of a view log: {error}"
            ) from None
        if isinstance(record, Life) and record.format != FORMAT:
            raise ReplayError(
                f"{name} has format {record.format}, expected {FORMAT}: replay it with the "
                "version that wrote it"
            )
        yield record
