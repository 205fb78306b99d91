"""Many fake members on one thread, at appointed times: the load of the control benchmark.

One loop over all sockets, so that it costs as little as it can beside what it measures. It says
itself how late it is: how long after its appointed time something was sent, and how long what had
arrived was left unread. When a reply has arrived is the kernel's word, not this loop's; the
appointed time is that of the plan, so a wait holds all that the coordinator and its queue need,
and what this loop was late in sending as well.
"""

import heapq
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.control.member import FakeMember
from dssync.control.transport import ClientHandshake, Unframer, frame

AT_ONCE = 16
"""Sockets read between two looks at the clock."""
_TIMESTAMPS = 35
"""SO_TIMESTAMPNS, which the socket module does not name: the kernel's time of each arrival."""
_TIMESPEC = struct.Struct("qq")
_READ_BYTES = 1 << 16


@dataclass
class Lateness:
    """How late the load itself was, in seconds."""

    sending: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)


class Load:
    """Members and their connections.

    Args:
        size: how many.
        address: host and port of the coordinator.
        token: the job's.
        beat_seconds: time between two heartbeats of one launcher.
    """

    def __init__(
        self, size: int, address: tuple[str, int], token: bytes, beat_seconds: float
    ) -> None:
        self.members = [FakeMember(slot) for slot in range(size)]
        self.lateness = Lateness()
        self._measures = False
        self._poll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._agenda: list[tuple[float, int, Callable[[float], None], float]] = []
        """Time, a number that tells entries apart, what to do, and after how long again."""
        for number, member in enumerate(self.members):
            line = _Line(member, address, token)
            self._lines[line.socket.fileno()] = line
            self._poll.register(line.socket, select.EPOLLIN)
            first = time.time() + (number + 1) / size * beat_seconds
            self._plan(first, line.beat, beat_seconds)

    def register(self) -> None:
        """Let all members state the size of the data."""
        for line in self._lines.values():
            line.send(line.member.register())

    def measure(self) -> None:
        """Note from now on what is to be seen."""
        self._measures = True
        for member in self.members:
            member.counts = True

    def keep_pace(self, firsts: Sequence[float], every: float) -> None:
        """Let each member do rounds from its first appointed time on."""
        for first, line in zip(firsts, self._lines.values(), strict=True):
            self._plan(first, self._round_of(line), every)

    def run(self, until: float) -> None:
        """Do what is due and read what comes, until a time."""
        while time.time() < until:
            self._turn(until)

    def run_until(self, holds: Callable[[FakeMember], bool], patience_seconds: float) -> None:
        """Run until something holds of every member.

        Raises:
            TimeoutError: it did not hold in time.
        """
        give_up = time.time() + patience_seconds
        while not all(map(holds, self.members)):
            if time.time() > give_up:
                raise TimeoutError(f"not all members came so far in {patience_seconds} s")
            self._turn(give_up)

    def close(self) -> None:
        """End all connections."""
        for line in self._lines.values():
            line.socket.close()
        self._poll.close()

    def _turn(self, until: float) -> None:
        now = time.time()
        while self._agenda[0][0] <= now:
            due, number, act, every = self._agenda[0]
            heapq.heapreplace(self._agenda, (due + every, number, act, every))
            act(due)
        pause = max(0.0, min(self._agenda[0][0], until) - time.time())
        for descriptor, _ in self._poll.poll(pause, AT_ONCE):
            self._read(self._lines[descriptor])

    def _plan(self, first: float, act: Callable[[float], None], every: float) -> None:
        heapq.heappush(self._agenda, (first, len(self._agenda), act, every))

    def _round_of(self, line: "_Line") -> Callable[[float], None]:
        def act(due: float) -> None:
            line.send(line.member.appoint(due))
            if self._measures:
                self.lateness.sending.append(time.time() - due)

        return act

    def _read(self, line: "_Line") -> None:
        arrived = line.read()
        if self._measures:
            self.lateness.reading.append(time.time() - arrived)


class _Line:
    """The connection of one member."""

    def __init__(self, member: FakeMember, address: tuple[str, int], token: bytes) -> None:
        self.member = member
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        self._unframer = Unframer()
        handshake = ClientHandshake(token)
        self.send([handshake.reply(self._next())])
        handshake.check(self._next())
        self.send([member.hello()])
        self.socket.setblocking(False)

    def beat(self, due: float) -> None:
        """Send a heartbeat."""
        self.send([self.member.beat()])

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames in one piece."""
        data = b"".join(map(frame, frames))
        # A coordinator that reads so little that not even this fits has failed the benchmark.
        assert not data or self.socket.send(data) == len(data)

    def read(self) -> float:
        """Take what has come, answer it, and return when the last of it arrived."""
        data, ancillary, _, _ = self.socket.recvmsg(_READ_BYTES, 64)
        if not data:
            raise ConnectionError("the coordinator has ended a connection")
        arrived = time.time()
        for _, _, stamp in ancillary:  # The kernel begins to give them a moment after it was asked.
            seconds, nanoseconds = _TIMESPEC.unpack(stamp)
            arrived = seconds + nanoseconds / 1e9
        for each in self._unframer.feed(data):
            self.send(self.member.take(each, arrived))
        return arrived

    def _next(self) -> bytes:
        while not (frames := self._unframer.feed(self.socket.recv(4096))):
            pass
        return frames[0]
