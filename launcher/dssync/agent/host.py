"""The coordinator's shell: connections in, connections out, a clock. All decisions are below.

One launcher of a job hosts it. That launcher talks to it by plain calls, the others over their
sessions. The coordinator is handed one event at a time on the event loop's thread.
"""

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from dssync.agent.awake import HOST_PAUSE_SECONDS, AwakeClock
from dssync.agent.history import ViewLog
from dssync.agent.recorder import entries
from dssync.agent.watch import watch
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import (
    Connected,
    Disconnected,
    Event,
    Note,
    Paused,
    Received,
    Send,
    Ticked,
)
from dssync.control.requests import Status
from dssync.control.roster import Phase
from dssync.control.session import Session
from dssync.control.survey import survey
from dssync.control.takeover import Launcher
from dssync.control.transport import FrameProtocol
from dssync.errors import ProtocolError

TICK_SECONDS = 0.02
NAME_BITS = 53
"""Of a session's name: any reader of JSON can take it."""
AT_ONCE = 32
"""Messages between two looks at the sockets; a freeze makes one for each member."""
FENCED = "fenced"
"""The answer to the hello of a pod that has been replaced."""

Deliver = Callable[[m.ToLauncher], None]


@dataclass(slots=True)
class _Remote:
    """A launcher on the other side of a session.

    With slots, as all of which there is one for each launcher: less memory is cached more often.
    """

    hello: m.Hello
    slot: int
    session: Session
    connection: FrameProtocol | None

    def is_continued_by(self, hello: m.Hello, session_name: object) -> bool:
        """Tell whether the launcher has this very session, and heard so."""
        return self.hello.pod_uid == hello.pod_uid and self.session.name == session_name


class CoordinatorHost:
    """Runs one coordinator on this event loop.

    Args:
        coordinator: decides.
        on_note: takes what people may want to know.
        log: takes the views.
        read: the clock.
        on_failed: called with the reason when the coordinator's clock stands for good.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        on_note: Callable[[Note], None],
        log: ViewLog | None = None,
        read: Callable[[], float] = time.monotonic,
        on_failed: Callable[[str], None] = lambda reason: None,
    ):
        self._coordinator = coordinator
        self._on_failed = on_failed
        self._on_note = on_note
        self._log = log
        self._clock = AwakeClock(read, HOST_PAUSE_SECONDS)
        self._local: tuple[int, Deliver] | None = None
        self._remotes: dict[int, _Remote] = {}
        self._connected: dict[FrameProtocol, _Remote] = {}
        self._ticker: asyncio.Task[None] | None = None
        self.gone: frozenset[str] = frozenset()
        """Uids of pods that have ended for certain, as the record says; who comes back from there
        is turned away, because its slot is another's."""
        self._last: tuple[m.ToLauncher | None, bytes] = (None, b"")
        """The last message that was written down."""
        self._later: dict[int, list[m.ToLauncher]] = {}
        """Messages that wait for their turn, by slot."""

    def start(self) -> None:
        """Start the coordinator's clock."""
        self._ticker = asyncio.create_task(self._tick())
        watch(self._ticker, self._on_failed)

    @property
    def slots(self) -> list[int]:
        """Slots of the launchers that are known."""
        return sorted(self._coordinator.roster.pods)

    @property
    def members(self) -> list[str]:
        """Keys of the workers that are known."""
        roster = self._coordinator.roster
        return sorted(roster.peers.keys() | roster.benched)

    def status(self, job: str) -> Status:
        """Return the state of the job, for people."""
        slot = -1 if self._local is None else self._local[0]
        return survey(self._coordinator, job, slot, self._now())

    def tell(self, slot: int, message: m.ToLauncher) -> None:
        """Send a message to a launcher on somebody's behalf."""
        self._send(slot, message)

    def attach(self, hello: m.Hello, deliver: Deliver) -> None:
        """Introduce the launcher of this very process."""
        self._local = hello.slot, deliver
        self.handle(Connected(hello))

    def handle(self, event: Event) -> None:
        """Hand one event to the coordinator and do what it wants."""
        now = self._now()
        effects = self._coordinator.handle(event, now)
        if self._log is not None and self._coordinator.world is not None:
            # Before anybody hears of it.
            self._log.viewed(self._coordinator.world.view)
        for number, effect in enumerate(effects):
            if not isinstance(effect, Send):
                self._on_note(effect)
            elif number < AT_ONCE:
                self._flush(effect.slot)
                self._send(effect.slot, effect.message)
            else:
                self._send_later(effect.slot, effect.message)

    def _now(self) -> float:
        """Read the clock; the coordinator hears of a pause first, whoever reads after it."""
        now = self._clock.now()
        if self._clock.last_pause_seconds:
            self.handle(Paused(self._clock.last_pause_seconds))
        return now

    @property
    def others(self) -> int:
        """Connected launchers besides this process."""
        return len(self._connected)

    @property
    def entries(self) -> dict[str, str]:
        """What the arbiter's record shall say of the job."""
        return entries(self._coordinator)

    @property
    def census(self) -> dict[str, int]:
        """Members by state; those of a launcher whose connection is lost are suspect."""
        roster = self._coordinator.roster
        lost = [slot for slot, pod in roster.pods.items() if pod.lost_seconds is not None]
        suspect = {key for slot in lost for key in roster.of_slot(slot)}
        phases = {
            "active": (Phase.ACTIVE,),
            "joining": (Phase.ENTERED, Phase.FETCHING, Phase.LOADED),
            "draining": (Phase.DRAINING,),
        }
        counts = {s: len(set(roster.in_phase(*each)) - suspect) for s, each in phases.items()}
        return {**counts, "suspect": len(suspect), "benched": len(roster.benched)}

    @property
    def view_sequence(self) -> int:
        """Sequence of the current view; 0 before the first."""
        world = self._coordinator.world
        return world.view.sequence if world is not None else 0

    @property
    def term(self) -> int:
        """Number of this coordinatorship."""
        return self._coordinator.job.term

    @property
    def idle(self) -> bool:
        """Whether no round is open."""
        return self._coordinator.idle

    @property
    def missing(self) -> tuple[Launcher, ...]:
        """Launchers that were lost and may live."""
        return self._coordinator.job.quorum.missing

    @property
    def successors(self) -> list[Launcher]:
        """Connected launchers that could take over, lowest slot first."""
        pods = self._coordinator.roster.pods
        connected = sorted(remote.slot for remote in self._connected.values())
        return [pods[s].launcher for s in connected if s in pods and not pods[s].draining]

    async def close(self) -> None:
        """Say what is left to say, and end all connections."""
        for slot in list(self._later):
            self._flush(slot)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for connection in list(self._connected):
            connection.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.handle(Ticked())

    def _send_later(self, slot: int, message: m.ToLauncher) -> None:
        """Queue what a whole view is told at once, so that nobody's answer waits behind it.

        What a launcher is told stays in order: an answer to it takes what is queued along.
        """
        if not self._later:
            asyncio.get_running_loop().call_soon(self._send_some)
        self._later.setdefault(slot, []).append(message)

    def _send_some(self) -> None:
        for slot in list(itertools.islice(self._later, AT_ONCE)):
            self._flush(slot)
        if self._later:
            asyncio.get_running_loop().call_soon(self._send_some)

    def _flush(self, slot: int) -> None:
        for message in self._later.pop(slot, ()):
            self._send(slot, message)

    def _send(self, slot: int, message: m.ToLauncher) -> None:
        if self._local is not None and slot == self._local[0]:
            # Never from inside the coordinator: the answer would come back as a nested event.
            asyncio.get_running_loop().call_soon(self._local[1], message)
            return
        remote = self._remotes.get(slot)
        if remote is not None:
            if message is not self._last[0]:
                # The ledger goes to everybody at once, and is long.
                self._last = (message, m.TO_LAUNCHER.encode(message))
            frame = remote.session.number(self._last[1])
            if remote.connection is not None:
                remote.connection.send(frame)

    def frame(self, connection: FrameProtocol, frame: bytes) -> None:
        """Take a frame of a launcher.

        Raises:
            ProtocolError: it is none that a launcher sends.
        """
        remote = self._connected.get(connection)
        if remote is None:
            self._introduce(connection, frame)
            return
        payload = remote.session.accept(frame)
        if remote.connection is None:
            # The first frame told what the launcher has; only now is the rest in order.
            remote.connection = connection
            for each in remote.session.resume():
                connection.send(each)
        if payload:
            message = m.LAUNCHER.decode(payload)
            if isinstance(message, m.Heartbeat):
                connection.send(remote.session.passing())
            self.handle(Received(remote.slot, message))

    def _introduce(self, connection: FrameProtocol, frame: bytes) -> None:
        """Take the first frame of a connection: a hello, and whether it continues a session."""
        try:
            body, session_name, term = json.loads(frame)
            hello = m.LAUNCHER.decode(str(body).encode())
        except (ValueError, TypeError, RecursionError):
            hello = None
        if not isinstance(hello, m.Hello):
            raise ProtocolError("a launcher's first frame is no hello")
        if term not in (0, self.term):
            raise ProtocolError(f"a launcher wants term {term!r} of the coordinator of {self.term}")
        if hello.pod_uid in self.gone:
            connection.send(json.dumps([FENCED, self.term]).encode())
            connection.close()
            return
        self._flush(hello.slot)  # into the session that it was meant for
        known = self._remotes.get(hello.slot)
        if known is not None:
            self._forget_connections(hello.slot)
        alive = hello.slot in self._coordinator.roster.pods
        session = Session(1 + secrets.randbits(NAME_BITS))
        resumed = known is not None and alive and known.is_continued_by(hello, session_name)
        if known is not None and resumed:
            session = known.session
        remote = _Remote(hello, hello.slot, session, None)
        self._remotes[hello.slot] = self._connected[connection] = remote
        connection.send(json.dumps([session.name, self.term]).encode())
        connection.send(session.passing())
        self.handle(Connected(hello, resumed))

    def _forget_connections(self, slot: int) -> None:
        for connection in [c for c, r in self._connected.items() if r.slot == slot]:
            del self._connected[connection]
            connection.close()

    def lost(self, connection: FrameProtocol) -> None:
        """Take note that a connection of a launcher has ended."""
        remote = self._connected.pop(connection, None)
        if remote is not None:
            remote.connection = None
            self.handle(Disconnected(remote.slot, remote.hello.pod_uid))
