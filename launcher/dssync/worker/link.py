"""A worker's end of the link: messages to the coordinator, the member's state, one condition.

The training thread waits on ``Link.condition`` for everything at once: operations that end,
messages that change the member's state, joiners that want a snapshot. A thread of the link reads
messages, answers those that need no thought at once (an abandoned attempt), and starts the
communicators of an assignment in the background.
"""

import base64
import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Protocol

from dssync.contract import ENV_LINK_FD
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, ControlSettings, Event, Note, Received, Recorded, Send
from dssync.control.measurements import DELTA, Delta
from dssync.control.member import MemberState
from dssync.control.takeover import Adopt
from dssync.control.transport import Unframer, frame
from dssync.errors import ProtocolError, UsageError
from dssync.worker.alarm import Alarm
from dssync.worker.cores import wait_for_free_core
from dssync.worker.word import tell

HOLD_SECONDS = 0.005
_READ_BYTES = 1 << 16
_opened = False
"""Whether this process has taken its launcher's word: there is no second one to take."""


@dataclass(frozen=True)
class Setup:
    """What the launcher tells its worker first."""

    member: str
    mode: str = "grid"
    group_size: int = 4
    every: int = 1
    commit: str = "relaxed"
    seed: int = 0
    average_optimizer_state: bool = False
    backend: str = "auto"
    host: str = "127.0.0.1"
    interface: str = ""
    """Network interface that groups bind to instead of ``host``."""
    workers: int = 1
    """Of this launcher."""
    token: str = ""
    """Hexadecimal."""
    view_log: str = ""
    """File to note in what this member does; empty: none."""
    replay: str = ""
    """File with the part that this worker plays again; empty: it trains."""
    replay_out: str = ""
    """Folder for the values at the end of a replay."""


class Handlers(Protocol):
    """What the link's thread calls; none may block."""

    def on_assign(self, assign: m.Assign) -> None:
        """Prepare for an assignment."""

    def on_abandon(self, assign: m.Assign) -> None:
        """Give up what an attempt has under way."""

    def on_adopt(self) -> None:
        """Give up every communicator of the term that is over."""

    def on_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Take a mate's rendezvous data."""


class Link:
    """The member's state, and the road its messages take.

    Args:
        setup: who this worker is.
        transmit: sends encoded messages.
        push_metrics: hands a delta to the launcher.
        alarm: has ``send_held`` called soon; without one nothing is held.
    """

    def __init__(
        self,
        setup: Setup,
        transmit: Callable[[list[bytes]], None],
        push_metrics: Callable[[Delta], None],
        alarm: Alarm | None = None,
    ) -> None:
        self.setup = setup
        self.condition = threading.Condition()
        self.state = MemberState()
        self.push_metrics = push_metrics
        self._transmit = transmit
        self._alarm = alarm
        self._held: list[m.FromMemberBody] = []
        self._sending = threading.RLock()
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
        """Send a message to the coordinator, after those that are held.

        What is noted and what is sent stay in step, so that a report to a new coordinator tells
        of exactly the messages before it.
        """
        with self.condition, self._sending:
            self.state.history.said(message)
            self._held.append(message)
            self.send_held()

    def hold(self, message: m.FromMemberBody) -> None:
        """Send a message that nobody waits for within ``HOLD_SECONDS``, or with the next one.

        At the end of a round the cores belong to mates that are still in it: the launcher, woken
        up by each member in turn, would take them a tenth of a round of 1 MB (measured).
        """
        if self._alarm is None:
            self.send(message)
            return
        with self._sending:
            self._held.append(message)
            self._alarm.set()

    def send_held(self) -> None:
        """Send what is held, at once."""
        with self._sending:
            held, self._held = self._held, []
            if held:
                self._transmit([m.MEMBER.encode(each) for each in held])

    def send_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Send rendezvous data to the other members of a communicator."""
        self.send(m.Blob(communicator, key, base64.b64encode(value).decode()))

    def wake(self) -> None:
        """Have whoever waits on the condition look again."""
        with self.condition:
            self.condition.notify_all()

    def receive(self, data: bytes) -> None:
        """Take in a message of the coordinator; called by the link's thread."""
        # What it asks may be answered by what is held.
        self.send_held()
        message = m.TO_MEMBER.decode(data)
        if isinstance(message, m.Blob):
            if self._handlers is not None:
                value = base64.b64decode(message.value)
                self._handlers.on_blob(message.communicator, message.key, value)
            return
        self._handle(message)

    def _handle(self, message: m.ToMemberBody) -> None:
        with self.condition:
            ended = self.state.ended_by(message)
            for answer in self.state.handle(message):
                self.send(answer)
            self.condition.notify_all()
        if self._handlers is None:
            return
        if isinstance(message, Adopt):
            self._handlers.on_adopt()
        for assign in ended:
            self._handlers.on_abandon(assign)
        if isinstance(message, m.Assign):
            self._handlers.on_assign(message)


def open_link(environ: MutableMapping[str, str]) -> Link:
    """Return the link to the launcher; without one, a world of one in this process.

    The link is this process's own: it is taken out of the environment, so that what the script
    starts is no worker.

    Raises:
        ProtocolError: the descriptor in the environment is no link.
        UsageError: this process, or the one it was forked from, has opened its link before.
    """
    global _opened
    descriptor = environ.pop(ENV_LINK_FD, None)
    if _opened:
        raise UsageError(
            "a worker has one GroupSync, and this one has made its own already: pass one module "
            "that holds all that trains (torch.nn.ModuleDict) and one optimizer for it"
        )
    if descriptor is None:
        return solo_link()
    if not _is_socket(int(descriptor)):
        # Who starts a program of its own does not pass descriptors on.
        tell(
            f"{ENV_LINK_FD} is {descriptor}, which is no socket in this process: it is no "
            "worker of the job and trains alone"
        )
        return solo_link()
    _opened = True
    return _launcher_link(int(descriptor))


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


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
    lock, alarm = threading.Lock(), Alarm(HOLD_SECONDS)

    def write(payloads: list[bytes]) -> None:
        with lock:
            try:
                end.sendall(b"".join(frame(each) for each in payloads))
            except (BrokenPipeError, ConnectionResetError):
                _await_death()

    link = Link(
        setup,
        transmit=lambda messages: write([b"C" + each for each in messages]),
        push_metrics=lambda delta: write([b"M" + DELTA.encode(delta)]),
        alarm=alarm,
    )

    def run() -> None:
        wait_for_free_core()
        poller = select.poll()
        for source in (end, alarm):
            poller.register(source, select.POLLIN)
        pending = frames[1:]
        while True:
            for payload in pending:
                link.receive(payload[1:])
            ready = [descriptor for descriptor, _ in poller.poll()]
            if alarm.fileno() in ready:
                alarm.quiet()
                link.send_held()
            pending = _read(end, unframer) if end.fileno() in ready else []

    threading.Thread(target=run, name="dssync-link", daemon=True).start()
    return link


def _read(end: socket.socket, unframer: Unframer) -> list[bytes]:
    try:
        data = end.recv(_READ_BYTES)
    except ConnectionResetError:
        data = b""
    if not data:
        _await_death()
    return unframer.feed(data)


def _await_death() -> None:
    """Do no more where the launcher has ended: this process is being killed with it.

    Whatever came next would be said and noted of a member that is lost.
    """
    threading.Event().wait()


def solo_link() -> Link:
    """Return a link to a coordinator of its own: a script under plain ``python`` runs this."""
    coordinator = Coordinator(1, ControlSettings(desired=1, minimum=1))
    member = f"0.0.{'0' * 32}"

    def transmit(messages: list[bytes]) -> None:
        for data in messages:
            take(Received(0, m.FromMember(member, data.decode())))

    def take(event: Event) -> None:
        for effect in coordinator.handle(event, time.monotonic()):
            if isinstance(effect, Send) and isinstance(effect.message, m.ToMember):
                link.receive(effect.message.body.encode())
            elif isinstance(effect, Note) and effect.kind == "completed":
                take(Recorded())  # There is no record, and nobody who would read it.

    link = Link(Setup(member, host=""), transmit, push_metrics=lambda _: None)
    coordinator.handle(Connected(m.Hello(0, "solo", 1, ("", "", ""))), time.monotonic())
    return link
