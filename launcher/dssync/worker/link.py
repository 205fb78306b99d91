"""A worker's end of the link: messages to the coordinator, the member's state, one condition.

The training thread waits on ``Link.condition`` for everything at once: operations that end,
messages that change the member's state, joiners that want a snapshot. A thread of the link reads
messages, answers those that need no thought at once (an abandoned attempt), and starts the
communicators of an assignment in the background.
"""

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dssync.contract import ENV_LINK_FD
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, ControlSettings, Received, Send
from dssync.control.member import MemberState
from dssync.control.transport import Unframer, frame
from dssync.errors import ProtocolError

_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Setup:
    """What the launcher tells its worker first."""

    member: str
    mode: str = "grid"
    group_size: int = 4
    every: int = 1
    commit: str = "relaxed"
    seed: int = 0
    backend: str = "auto"
    host: str = "127.0.0.1"
    interface: str = ""
    """Network interface that groups bind to instead of ``host``."""
    workers: int = 1
    """Of this launcher."""
    token: str = ""
    """Hexadecimal."""


class Handlers(Protocol):
    """What the link's thread calls; none may block."""

    def on_assign(self, assign: m.Assign) -> None:
        """Prepare for an assignment."""

    def on_abandon(self, assign: m.Assign) -> None:
        """Give up what an attempt has under way."""

    def on_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Take a mate's rendezvous data."""


class Link:
    """The member's state, and the road its messages take.

    Args:
        setup: who this worker is.
        transmit: sends one encoded message.
        push_metrics: hands a delta to the launcher.
    """

    def __init__(
        self,
        setup: Setup,
        transmit: Callable[[bytes], None],
        push_metrics: Callable[[object], None],
    ) -> None:
        self.setup = setup
        self.condition = threading.Condition()
        self.state = MemberState()
        self.push_metrics = push_metrics
        self._transmit = transmit
        self._handlers: Handlers | None = None

    @property
    def ended(self) -> bool:
        """Whether the job has no more to do for this member: it is done, or does not want it."""
        state = self.state
        return bool(state.refused) or state.completed is not None or state.leaving

    def listen(self, handlers: Handlers) -> None:
        """Call these from now on."""
        self._handlers = handlers

    def send(self, message: m.FromMemberBody) -> None:
        """Send a message to the coordinator."""
        self._transmit(m.MEMBER.encode(message))

    def send_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Send rendezvous data to the other members of a communicator."""
        self.send(m.Blob(communicator, key, base64.b64encode(value).decode()))

    def wake(self) -> None:
        """Have whoever waits on the condition look again."""
        with self.condition:
            self.condition.notify_all()

    def receive(self, data: bytes) -> None:
        """Take in a message of the coordinator; called by the link's thread."""
        message = m.TO_MEMBER.decode(data)
        if isinstance(message, m.Blob):
            if self._handlers is not None:
                value = base64.b64decode(message.value)
                self._handlers.on_blob(message.communicator, message.key, value)
            return
        self._handle(message)  # type: ignore[arg-type]

    def _handle(self, message: m.ToMemberBody) -> None:
        with self.condition:
            ended = self.state.ended_by(message)
            for answer in self.state.handle(message):
                self.send(answer)
            self.condition.notify_all()
        if self._handlers is None:
            return
        for assign in ended:
            self._handlers.on_abandon(assign)
        if isinstance(message, m.Assign):
            self._handlers.on_assign(message)


def open_link(environ: dict[str, str]) -> Link:
    """Return the link to the launcher; without one, a world of one in this process.

    Raises:
        ProtocolError: the descriptor in the environment is no link.
    """
    descriptor = environ.get(ENV_LINK_FD)
    if descriptor is None:
        return solo_link()
    return _launcher_link(int(descriptor))


def _launcher_link(descriptor: int) -> Link:
    os.set_inheritable(descriptor, False)
    end = socket.socket(fileno=os.dup(descriptor))
    end.setblocking(True)
    unframer = Unframer()
    frames = _read(end, unframer)
    while not frames:
        frames = _read(end, unframer)
    if frames[0][:1] != b"S":
        raise ProtocolError(f"descriptor {descriptor} is no link: its first frame is no set-up")
    setup = Setup(**json.loads(frames[0][1:]))
    lock = threading.Lock()

    def write(payload: bytes) -> None:
        with lock:
            end.sendall(frame(payload))

    link = Link(
        setup,
        transmit=lambda data: write(b"C" + data),
        push_metrics=lambda delta: write(b"M" + json.dumps(delta).encode()),
    )

    def run() -> None:
        pending = frames[1:]
        while True:
            for payload in pending:
                link.receive(payload[1:])
            pending = _read(end, unframer)

    threading.Thread(target=run, name="dssync-link", daemon=True).start()
    return link


def _read(end: socket.socket, unframer: Unframer) -> list[bytes]:
    data = end.recv(_READ_BYTES)
    if not data:
        # The launcher's end: this process is being killed with it.
        threading.Event().wait()
    return unframer.feed(data)


def solo_link() -> Link:
    """Return a link to a coordinator of its own: a script under plain ``python`` runs this."""
    coordinator = Coordinator(1, ControlSettings(desired=1, minimum=1))
    member = f"0.0.{'0' * 32}"

    def transmit(data: bytes) -> None:
        event = Received(0, m.FromMember(member, data.decode()))
        for effect in coordinator.handle(event, time.monotonic()):
            if isinstance(effect, Send) and isinstance(effect.message, m.ToMember):
                link.receive(effect.message.body.encode())

    link = Link(Setup(member, host=""), transmit, push_metrics=lambda _: None)
    coordinator.handle(Connected(m.Hello(0, "solo", 1, ("", "", ""))), time.monotonic())
    return link
