"""A member without a process: the real member's state machine behind a real launcher's session.

It trains on nothing. At times that were fixed before, whatever the coordinator does (an open
loop), it applies its round and asks for the next batch, and notes how long after that time it
has both its next assignment and the lease. Nothing else of a round waits for the coordinator.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.control.server import TOKEN
from dssync.control import messages as m
from dssync.control.member import MemberState
from dssync.control.session import Session
from dssync.control.transport import FrameProtocol, connect

MODEL = ("w float32 262144",)
SYNC = m.SyncSettings("grid", 4, 1, "relaxed", 0)
HEARTBEAT_SECONDS = 0.25
DATA = m.Register((m.Track("", 1 << 30),), 1)


@dataclass
class Seen:
    """What a member has measured."""

    waits_seconds: list[float] = field(default_factory=list)
    """Per round, from its appointed time to the next assignment and its lease."""
    assigned: int = 0
    bytes_received: int = 0
    """In replies to the member; the ledger goes to launchers at a pace of its own."""


class FakeMember:
    """One launcher with one worker."""

    def __init__(self, slot: int, now: Callable[[], float]) -> None:
        self.seen = Seen()
        self.counts = False
        """Whether what happens is to be measured."""
        self.assigned = asyncio.Event()
        """It is in the view, with something to do."""
        self.answered = asyncio.Event()
        """Its last round has got what the next one needs."""
        self._key = f"{slot}.0.{slot:032x}"
        self._hello = m.Hello(slot, f"pod-{slot}", 1, ("", "", f"node-{slot}"))
        self._now = now
        self._state = MemberState()
        self._session = Session()
        self._introduced = False
        self._connection: FrameProtocol | None = None
        self._due: float | None = None
        """The appointed time of the round that has not been answered yet."""
        self._batches: tuple[int, ...] = ()
        self._leased = False

    async def enter(self, host: str, port: int) -> None:
        """Connect and say hello."""
        self._connection = await connect(host, port, TOKEN, self._frame, lambda: None)
        hello = m.LAUNCHER.encode(self._hello).decode()
        self._connection.send(json.dumps([hello, False, 1]).encode())

    def register(self) -> None:
        """State the size of the data, and take the first batch."""
        self._say(DATA)
        self._say(m.Take(1, 0))

    def beat(self) -> None:
        """Send a launcher's heartbeat."""
        if self._connection is not None:
            body = m.LAUNCHER.encode(m.Heartbeat((m.Progress(self._key, 0, 0.0),)))
            self._connection.send(self._session.passing(body))

    def apply(self, due: float) -> None:
        """Do at its time what the end of a round does; late only if the coordinator is."""
        if self._due is not None:
            # The last one is still unanswered: that wait goes on, and this round is lost.
            return
        assign = self._state.assignment
        applied = None if assign is None else self._state.apply(assign, self._batches)
        if applied is not None:
            self._due, self._leased = due, False
            self.answered.clear()
            self._say(applied)
            self._say(m.Take(1, 0))

    def close(self) -> None:
        """Go away."""
        if self._connection is not None:
            self._connection.close()

    def _say(self, message: m.FromMemberBody) -> None:
        body = m.LAUNCHER.encode(m.FromMember(self._key, m.MEMBER.encode_text(message)))
        if self._connection is not None:
            self._connection.send(self._session.number(body))

    def _frame(self, payload: bytes) -> None:
        if not self._introduced:
            self._introduced = True
            if self._connection is not None:
                self._connection.send(self._session.passing())
            self._say(m.Enter(MODEL, SYNC, "127.0.0.1:1"))
            return
        body = self._session.accept(payload)
        if body:
            message = m.TO_LAUNCHER.decode(body)
            if isinstance(message, m.ToMember):
                self.seen.bytes_received += self.counts * len(payload)
                self._take(m.TO_MEMBER.decode(message.body))

    def _take(self, message: object) -> None:
        if isinstance(message, m.Leases):
            self._leased, self._batches = True, message.batches
        else:
            for answer in self._state.handle(message):  # type: ignore[arg-type]
                self._say(answer)
        if isinstance(message, m.Fetch):
            self._state.fetch = None
            self._say(m.Loaded(message.donor))
        if isinstance(message, m.Assign):
            self.assigned.set()
        self.seen.assigned += self.counts and isinstance(message, m.Assign)
        if self._due is not None and self._leased and self._state.assignment is not None:
            if self.counts:
                self.seen.waits_seconds.append(self._now() - self._due)
            self._due = None
            self.answered.set()


async def beat_all(members: list[FakeMember]) -> None:
    """Send everybody's heartbeats, spread over the interval."""
    while True:
        for member in members:
            member.beat()
            await asyncio.sleep(HEARTBEAT_SECONDS / len(members))
