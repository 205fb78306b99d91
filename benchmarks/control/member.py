"""A member without a process: the real member's state machine behind a real launcher's session.

It trains on nothing. At times that were fixed before, whatever the coordinator does (an open
loop), it applies its round and asks for the next batch. What it then waits for is its next
assignment and the lease; nothing else of a round waits for the coordinator. Sans IO: frames in,
frames out, and the time at which each has arrived.
"""

import json
from collections import deque
from dataclasses import dataclass, field

from dssync.control import messages as m
from dssync.control.member import MemberState
from dssync.control.session import Session

MODEL = ("w float32 262144",)
SYNC = m.SyncSettings("grid", 4, 1, "relaxed", 0)
DATA = m.Register((m.Track("", 1 << 30),), 1)
ONE_BATCH = m.MEMBER.encode_text(m.Take(1, 0))


@dataclass
class Seen:
    """What a member has measured."""

    waits_seconds: list[float] = field(default_factory=list)
    """Per round, from its appointed time until the next assignment and its lease have arrived."""
    assigned: int = 0
    bytes_received: int = 0
    """In replies to the member; the ledger goes to launchers at a pace of its own."""


class FakeMember:
    """One launcher with one worker."""

    def __init__(self, slot: int) -> None:
        self.seen = Seen()
        self.counts = False
        """Whether what happens is to be measured."""
        self._key = f"{slot}.0.{slot:032x}"
        self._hello = m.Hello(slot, f"pod-{slot}", 1, ("", "", f"node-{slot}"))
        self._state = MemberState()
        self._session = Session()
        self._introduced = False
        self._due: deque[float] = deque()
        """Appointed times of the rounds that have not been answered yet, the current one first."""
        self._batches: tuple[int, ...] = ()
        self._leased = False

    @property
    def is_ready(self) -> bool:
        """Whether it has an assignment."""
        return self._state.assignment is not None

    @property
    def is_waiting(self) -> bool:
        """Whether a round is not answered yet."""
        return bool(self._due)

    def hello(self) -> bytes:
        """Return the first frame of a launcher."""
        return json.dumps([m.LAUNCHER.encode(self._hello).decode(), False, 1]).encode()

    def register(self) -> list[bytes]:
        """State the size of the data, and take the first batch."""
        return [self._say(m.MEMBER.encode_text(DATA)), self._say(ONE_BATCH)]

    def beat(self) -> bytes:
        """Return a launcher's heartbeat."""
        body = m.LAUNCHER.encode(m.Heartbeat((m.Progress(self._key, 0, 0.0),)))
        return self._session.passing(body)

    def appoint(self, due: float) -> list[bytes]:
        """Do at its time what the end of a round does; later only if the coordinator is late."""
        self._due.append(due)
        return self._apply() if len(self._due) == 1 else []

    def take(self, frame: bytes, arrived: float) -> list[bytes]:
        """Take what has come, and return what to send."""
        if not self._introduced:
            self._introduced = True
            hello = m.MEMBER.encode_text(m.Enter(MODEL, SYNC, "127.0.0.1:1"))
            return [self._session.passing(), self._say(hello)]
        body = self._session.accept(frame)
        if not body:
            return []
        message = m.TO_LAUNCHER.decode(body)
        if not isinstance(message, m.ToMember):
            return []
        self.seen.bytes_received += self.counts * len(frame)
        answers = self._hear(m.TO_MEMBER.decode(message.body))
        if self._due and self._leased and self._state.assignment is not None:
            answers += self._answered(arrived)
        return answers

    def _apply(self) -> list[bytes]:
        assign = self._state.assignment
        applied = None if assign is None else self._state.apply(assign, self._batches)
        assert applied is not None
        self._leased = False
        return [self._say(m.MEMBER.encode_text(applied)), self._say(ONE_BATCH)]

    def _answered(self, arrived: float) -> list[bytes]:
        due = self._due.popleft()
        if self.counts:
            self.seen.waits_seconds.append(arrived - due)
        return self._apply() if self._due else []

    def _say(self, body: str) -> bytes:
        return self._session.number(m.LAUNCHER.encode(m.FromMember(self._key, body)))

    def _hear(self, message: m.ToMemberBody) -> list[bytes]:
        match message:
            case m.Leases(batches=batches):
                self._leased, self._batches = True, batches
                return []
            case m.Assign():
                self.seen.assigned += self.counts
        said = [self._say(m.MEMBER.encode_text(each)) for each in self._state.handle(message)]
        if isinstance(message, m.Fetch):
            self._state.fetch = None
            said.append(self._say(m.MEMBER.encode_text(m.Loaded(message.donor))))
        return said
