"""The coordinator's shell in the launcher that hosts it: sessions, ticks, the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dssync.agent.awake import HOST_PAUSE_SECONDS, AwakeClock
from dssync.agent.recorder import FINISH_SECONDS, Recorder, entries
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import (
    Connected,
    Disconnected,
    Event,
    Note,
    Paused,
    Received,
    Recorded,
    Resized,
    Send,
    Ticked,
)
from dssync.control.record import Record
from dssync.control.session import Session
from dssync.control.takeover import Launcher
from dssync.errors import ArbiterError
from simulation.arbiter import Script
from simulation.monitor import Monitor
from simulation.network import End, Handlers

if TYPE_CHECKING:
    from simulation.pod import Pod

TICK_SECONDS = 0.1
RECORD_SECONDS = 0.5


@dataclass
class _Remote:
    """A launcher on the other side of a session."""

    hello: m.Hello
    session: Session
    end: End
    ready: bool = False


class Hub:
    """Runs one coordinator in a pod."""

    def __init__(self, pod: Pod, coordinator: Coordinator, monitor: Monitor) -> None:
        self.pod = pod
        self.coordinator = coordinator
        self.completed = False
        self._monitor = monitor
        self._clock = AwakeClock(pod.clock, HOST_PAUSE_SECONDS)
        self._remotes: dict[int, _Remote] = {}
        self._slots: dict[End, int] = {}
        self._closed = False
        self._script = Script(pod.world.cell, pod, pod.uid)
        self._recorder: Recorder | None = None
        self._writing = False
        self._concluded = False
        """The record says that the job is done, or never will on behalf of this coordinator."""
        self._then: list[Callable[[], None]] = []
        self._tick()

    @property
    def term(self) -> int:
        return self.coordinator.job.term

    @property
    def others(self) -> int:
        """Connected launchers besides this one."""
        return len(self._slots)

    @property
    def missing(self) -> tuple[Launcher, ...]:
        return self.coordinator.job.quorum.missing

    @property
    def successors(self) -> list[Launcher]:
        """Connected launchers that could take over, lowest slot first."""
        pods, connected = self.coordinator.roster.pods, sorted(self._slots.values())
        return [pods[s].launcher for s in connected if s in pods and not pods[s].draining]

    def close(self) -> None:
        """Coordinate no longer."""
        self._closed = True
        for end in list(self._slots):
            end.close()

    # --- the record ---------------------------------------------------------------------------

    def record(self, mine: Record) -> None:
        """Keep the arbiter's record in step from now on."""
        self._recorder = Recorder(
            self._script,
            mine,
            lambda: entries(self.coordinator),
            lambda sizes: self.handle(Resized(sizes.desired, sizes.minimum)),
        )

    def heard(self, record: Record) -> None:
        """Take in the record as it was read just now."""
        if self._recorder is not None and not self._writing:
            self._writing = True
            work = self._recorder.update(record, self.pod.clock())
            self._script.drive(work, self._written)

    def _written(self) -> None:
        self._writing = False

    def finish(self, then: Callable[[], None]) -> None:
        """Go on once there is no more to be written of a job that is done."""
        if self._concluded:
            then()
        else:
            self._then.append(then)

    def _conclude(self) -> None:
        """See that the record says that the job is done, for a minute if need be; tell then."""
        give_up = self.pod.clock() + FINISH_SECONDS

        def read(record: Record | ArbiterError | None) -> None:
            known = isinstance(record, Record)
            lasts = not known or (record.holder, record.term) == (self.pod.uid, self.term)
            if lasts and not (known and record.completed) and self.pod.clock() <= give_up:
                if known:
                    self.heard(record)
                self.pod.later(RECORD_SECONDS, look)
                return
            self._concluded = True
            if lasts:
                self.handle(Recorded())
            for then in self._then:
                then()

        def look() -> None:
            self.pod.world.cell.read(self.pod, self.pod.uid, read)

        look()

    # --- launchers ----------------------------------------------------------------------------

    def introduce_local(self, hello: m.Hello) -> None:
        """Take in the launcher of this very pod."""
        self.handle(Connected(hello))

    def introduce(self, end: End, hello: m.Hello, *, session_name: int, term: int) -> bool:
        """Take in the first frame of a connection; False if it is for another coordinator."""
        if self._closed or term not in (0, self.term):
            return False
        known = self._remotes.get(hello.slot)
        if known is not None and self._slots.pop(known.end, None) is not None:
            known.end.close()
        alive = hello.slot in self.coordinator.roster.pods
        same = known is not None and known.hello.pod_uid == hello.pod_uid
        resumed = known is not None and alive and same and known.session.name == session_name
        session = self.pod.world.new_session()
        session.name = self.pod.world.new_name()
        if resumed and known is not None:
            session = known.session
        self._remotes[hello.slot] = _Remote(hello, session, end)
        self._slots[end] = hello.slot
        end.handlers = Handlers(lambda frame: self._frame(end, frame), lambda: self._lost(end))
        end.send(b"%d %d" % (session.name, self.term))
        end.send(session.passing())
        self.handle(Connected(hello, resumed))
        return True

    def _frame(self, end: End, frame: bytes) -> None:
        slot = self._slots.get(end)
        if slot is None or self._closed:
            return
        remote = self._remotes[slot]
        payload = remote.session.accept(frame)
        if not remote.ready:
            remote.ready = True
            for each in remote.session.resume():
                end.send(each)
        if payload:
            message = self.pod.world.parcels.unpack(payload)
            if isinstance(message, m.Heartbeat):
                end.send(remote.session.passing())
            self.handle(Received(slot, message))  # type: ignore[arg-type]

    def _lost(self, end: End) -> None:
        slot = self._slots.pop(end, None)
        if slot is not None and not self._closed:
            self._remotes[slot].ready = False
            self.handle(Disconnected(slot, self._remotes[slot].hello.pod_uid))

    # --- the coordinator ----------------------------------------------------------------------

    def now(self) -> float:
        """Read the coordinator's clock; it hears of a pause first."""
        now = self._clock.now()
        if self._clock.last_pause_seconds:
            self.handle(Paused(self._clock.last_pause_seconds))
        return now

    def handle(self, event: Event) -> None:
        """Hand one event to the coordinator and do what it wants, unless the pod dies meanwhile."""
        if self._closed or not self.pod.alive:
            return
        now = self.now()
        self._monitor.before(event, now)
        effects = self.coordinator.handle(event, now)
        self._monitor.after(effects)
        for effect in effects:
            if not self.pod.survives_effect():
                return
            if isinstance(effect, Send):
                self.tell(effect.slot, effect.message)
            elif isinstance(effect, Note) and effect.kind == "completed":
                self.completed = True
                self._conclude()

    def tell(self, slot: int, message: m.ToLauncher) -> None:
        """Send a message to a launcher."""
        if slot == self.pod.spec.slot:
            self.pod.later(0.0, lambda: self.pod.hears(self.term, message))
            return
        remote = self._remotes.get(slot)
        if remote is not None:
            frame = remote.session.number(self.pod.world.parcels.pack(message))
            if remote.ready:
                remote.end.send(frame)

    def _tick(self) -> None:
        if not self._closed:
            self.handle(Ticked())
            self.pod.later(TICK_SECONDS, self._tick)
