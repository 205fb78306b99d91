"""A launcher's part in coordinating its job: linked to the coordinator, or hosting it.

Ties together the election, which says who coordinates, the door at which other launchers knock,
and the uplink, which carries this launcher's messages to whoever coordinates now.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from dssync.agent import office
from dssync.agent.arbiters import StaticArbiter
from dssync.agent.campaign import Campaign
from dssync.agent.console import Console
from dssync.agent.door import Door
from dssync.agent.evidence import has_ended, own_process
from dssync.agent.history import ViewLog
from dssync.agent.host import CoordinatorHost
from dssync.agent.peers import Peers
from dssync.agent.recorder import Recorder, Sizes
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings
from dssync.agent.uplink import LinkEvents, LocalUplink, RemoteUplink, Uplink
from dssync.control import ballots as b, messages as m
from dssync.control.adoption import Electorate
from dssync.control.ballots import ElectionSettings
from dssync.control.coordinator import Coordinator
from dssync.control.election import Election
from dssync.control.events import (
    ControlSettings,
    ExitsConfirmed,
    Looked,
    Note,
    Placed,
    Recorded,
    Resigning,
    Resized,
)
from dssync.control.peers import Answer, Elected, Leader
from dssync.control.record import Record
from dssync.control.takeover import Launcher, Launchers, Succeed
from dssync.errors import ArbiterError

WATCH_SECONDS = 0.2
POLL_SECONDS = 0.02
LINGER_SECONDS = 10.0
"""How long a coordinator stays for launchers that have not left after completion."""
HAND_OVER_SECONDS = 2.0
"""How long a coordinator that leaves waits for its successor."""
HAND_OVER_PAUSE_SECONDS = 5.0
"""So long it coordinates on, if nobody takes over, before it tries again."""


@dataclass(frozen=True)
class Handlers:
    """What coordination reports to its launcher."""

    hello: Callable[[], m.Hello]
    """Returns what introduces this launcher; without address and process."""
    deliver: Callable[[m.ToLauncher], None]
    on_term: Callable[[int], None]
    """The launcher is linked to the coordinator of a term for the first time."""
    on_again: Callable[[], None]
    """The launcher is linked to the coordinator of the same term again."""
    on_fresh: Callable[[], None]
    """The coordinator did not know this launcher any more."""
    on_fenced: Callable[[], None]
    """This pod has been replaced."""
    on_nobody: Callable[[], None]
    """Nobody leads, and nobody can take over now; said again for as long as that lasts."""
    on_given_up: Callable[[str], None]
    """No coordinator could be reached for too long, or this launcher's own part failed."""
    on_answered: Callable[[float], None]
    """The coordinator answered a heartbeat after so many seconds."""
    log: ViewLog
    """Takes the views that are made here."""


class Coordination:
    """This launcher's side of the control plane.

    Args:
        settings: what the launcher was told.
        handlers: what to call.
        reporter: takes log lines and metrics.
    """

    def __init__(self, settings: Settings, handlers: Handlers, reporter: Reporter) -> None:
        self._settings = settings
        self._handlers = handlers
        self._reporter = reporter
        self._token = office.read_token(settings.control.token_file)
        self._arbiter = office.arbiter_of(settings)
        self._console = Console(settings, reporter, self._arbiter)
        self._door = Door(self._console.respond, self, reporter.refused)
        self._host: CoordinatorHost | None = None
        self._uplink: Uplink | None = None
        self._recorder: Recorder | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._linked = False
        self._reached = False  # The link stands now, where ``_linked`` outlives its losses.
        self._completed = False
        self._began = asyncio.get_running_loop().time()

    async def open(self) -> None:
        """Listen, and begin to look for a coordinator.

        Raises:
            UsageError: the port is in use.
            ArbiterError: the arbiter cannot be reached.
        """
        control = self._settings.control
        await self._door.open(control.address, office.port_of(self._settings), self._token)
        await office.read_patiently(self._arbiter, self._reporter)
        hello = self._handlers.hello()
        self._me = Launcher(hello.slot, hello.pod_uid, self._door.address, own_process())
        self._reporter.log("listening", slot=hello.slot, address=self._door.address)
        loop_time = asyncio.get_running_loop().time()
        self._election = Election(self._me, self._election_settings(), loop_time)
        self._console.election = self._election
        peers = Peers(self._me.uid, self._token, lambda a: self._campaign.handle(b.Answered(a)))
        self._peers = peers
        self._campaign = Campaign(
            self._election, self._arbiter, peers, self._perform, self._handlers.on_given_up
        )
        self._campaign.handle(b.Ticked())

    def send(self, message: m.FromLauncher) -> None:
        """Send a message to the coordinator of this term, if there is one."""
        if self._uplink is not None and self._linked:
            self._uplink.send(message)

    def finished(self, told: bool) -> None:
        """The job is done: what is lost is no loss, once all workers here are told of it."""
        self._campaign.handle(b.Finished(told))

    async def hand_over(self) -> None:
        """Let another launcher coordinate, if this one does; after a while, go on instead."""
        host, nobody_else = self._host, isinstance(self._arbiter, StaticArbiter)
        if host is None or not host.successors or self._completed or nobody_else:
            return
        host.handle(Resigning())
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await _until(lambda: host.idle)
                if host.successors:
                    self._campaign.handle(b.Resign(host.successors[0]))
                    await _until(lambda: self._host is not host and self._linked)
                    return
        except TimeoutError:
            pass
        self._campaign.handle(b.Stay())
        host.handle(Resigning(False))

    async def until_unneeded(self, leave: asyncio.Event) -> None:
        """Stay as long as other launchers need the coordinator that runs here."""
        loop = asyncio.get_running_loop()
        give_up, next_try = loop.time() + LINGER_SECONDS, 0.0
        while not leave.is_set():
            if not self._completed and loop.time() >= next_try:
                await self.hand_over()
                next_try = loop.time() + HAND_OVER_PAUSE_SECONDS
            late = self._completed and loop.time() > give_up
            if late or self._host is None or not self._host.others:
                return
            await asyncio.sleep(POLL_SECONDS)

    def measure(self) -> None:
        """Look after what changes without a message; to be called with each heartbeat."""
        if trouble := self._handlers.log.take_trouble():
            self._reporter.log("view_log_ended", reason=repr(trouble))
        if self._host is not None:
            self._reporter.census(self._host.census, self._host.view_sequence)
            self._confirm_exits(self._host, frozenset())
        waited = asyncio.get_running_loop().time() - self._began
        if self._reached:
            self._began += waited
        elif waited > office.REACH_SECONDS and not self._election.settings.may_stand:
            self._handlers.on_given_up(self._unreached)

    @property
    def _unreached(self) -> str:
        where = self._settings.control.arbiter_target
        waited = f"no coordinator answered at {where} for {office.REACH_SECONDS:g} s"
        trouble = self._uplink.trouble if self._uplink is not None else ""
        return f"{waited}: {trouble}" if trouble else waited

    async def close(self) -> None:
        """End connections, server and recorder."""
        await asyncio.gather(*self._closing)  # One of them may see to the last word in the record.
        await self._campaign.close()
        await self._stop_hosting()
        if self._uplink is not None:
            await self._uplink.close()
        await asyncio.gather(*self._closing)
        await self._door.close()

    # --- what the election wants ----------------------------------------------------------------

    def _perform(self, effect: b.Effect) -> None:
        match effect:
            case b.Follow(leader):
                self._follow(leader)
            case b.Lead(record, electorate, others, age_seconds):
                self._lead(record, electorate, age_seconds)
                self._peers.announce(others, Elected(self._leader_of(record)))
            case b.Hold(record, age_seconds) if self._host is not None:
                self._hold(record, self._host, age_seconds)
            case b.NobodyLeads():
                self._handlers.on_nobody()
            case b.StepDown():
                self._reporter.log("stepping_down", slot=self._me.slot)
                self._linked = False
                if self._uplink is not None:
                    self._uplink.end()
                self._retire(self._stop_hosting())
            case b.Fenced():
                self._handlers.on_fenced()
            case b.HandOver(successor, term) if self._host is not None:
                self._host.tell(successor.slot, Succeed(term))
            case _:
                pass

    def _follow(self, leader: Leader) -> None:
        events = LinkEvents(
            self._deliver, self._link_made, self._link_lost, self._handlers.on_fresh,
            self._handlers.on_fenced, self._handlers.on_answered,
        )  # fmt: skip
        lease = self._settings.control.lease_seconds
        self._take_uplink(RemoteUplink(leader, self._token, self._hello, events, lease))

    def _lead(self, record: Record, electorate: Electorate, age_seconds: float) -> None:
        settings = self._control_settings(record)
        coordinator = Coordinator(record.term, settings, electorate)
        host = CoordinatorHost(
            coordinator, self._note, self._handlers.log, on_failed=self._handlers.on_given_up
        )
        host.start()
        self._completed = False
        self._host = self._door.launchers = self._console.host = host
        self._recorder = Recorder(
            self._arbiter,
            record,
            lambda: host.entries,
            lambda sizes: host.handle(Resized(sizes.desired, sizes.minimum)),
        )
        self._reporter.log(
            "coordinating", slot=self._me.slot, address=self._me.address, term=record.term
        )
        self._take_uplink(LocalUplink(host, self._hello(), self._deliver))
        self._learn(record, host, age_seconds)
        self._link_made(record.term, True)

    def _hold(self, record: Record, host: CoordinatorHost, age_seconds: float) -> None:
        self._learn(record, host, age_seconds)
        self._confirm_exits(host, record.gone)
        if self._recorder is not None:
            self._recorder.heard(record)

    def _learn(self, record: Record, host: CoordinatorHost, age_seconds: float) -> None:
        """Tell the coordinator what others wrote into the record, as it was read just now."""
        host.gone = record.gone
        host.handle(Looked(age_seconds))
        host.handle(Placed(record.paths))

    def _confirm_exits(self, host: CoordinatorHost, gone: frozenset[str]) -> None:
        missing = host.missing
        ended = tuple(x.uid for x in missing if x.uid in gone or has_ended(x.process))
        if ended:
            host.handle(ExitsConfirmed(ended))

    def _take_uplink(self, uplink: Uplink) -> None:
        former, self._uplink = self._uplink, uplink
        self._linked = self._reached = False
        if former is not None:
            former.end()
            self._retire(former.close())

    async def _stop_hosting(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            self._reporter.no_census(host.census)
        self._door.launchers = self._console.host = None
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            await recorder.close()
        if host is not None:
            await host.close()

    def _retire(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # --- the link -------------------------------------------------------------------------------

    def _link_made(self, term: int, first: bool) -> None:
        self._linked = self._reached = True
        self._campaign.handle(b.Linked(term))
        if first:
            self._handlers.on_term(term)
        else:
            self._handlers.on_again()

    def _link_lost(self) -> None:
        self._reached = False
        self._campaign.handle(b.LinkLost())

    @property
    def answer(self) -> Answer:
        """What a candidate is told; see ``door.Voter``."""
        return self._election.answer

    def heard(self, leader: Leader) -> None:
        """Take note that somebody was elected; see ``door.Voter``."""
        self._campaign.handle(b.Heard(leader))

    def _deliver(self, message: m.ToLauncher) -> None:
        match message:
            case Launchers(launchers, missing):
                self._campaign.handle(b.Viewed(launchers, missing))
            case Succeed(term):
                self._campaign.handle(b.Appointed(term))
            case _:
                self._handlers.deliver(message)

    def _hello(self) -> m.Hello:
        hello = self._handlers.hello()
        return m.Hello(
            hello.slot, hello.pod_uid, hello.workers, hello.place, self._me.address,
            self._me.process,
        )  # fmt: skip

    def _leader_of(self, record: Record) -> Leader:
        return Leader(record.term, self._me.uid, self._me.address)

    # --- the record -----------------------------------------------------------------------------

    async def _finish(self, recorder: Recorder, host: CoordinatorHost) -> None:
        """See that the record says that the job is done, and let everybody be told then."""
        try:
            lasted = await recorder.finish()
        except ArbiterError as error:
            self._reporter.log("unrecorded", completed=True, arbiter=f"{error}")
            lasted = True
        if lasted and host is self._host:
            host.handle(Recorded())

    def _note(self, note: Note) -> None:
        self._reporter.note(note)
        if note.kind == "completed" and self._recorder is not None and self._host is not None:
            self._completed = True
            self._retire(self._finish(self._recorder, self._host))

    # --- settings -------------------------------------------------------------------------------

    @property
    def _watch_seconds(self) -> float:
        return (
            office.LEASE_WATCH_SECONDS
            if self._settings.control.arbiter == "lease"
            else WATCH_SECONDS
        )

    def _election_settings(self) -> ElectionSettings:
        fixed = isinstance(self._arbiter, StaticArbiter) and not self._arbiter.is_host
        return ElectionSettings(look_seconds=self._watch_seconds, may_stand=not fixed)

    def _control_settings(self, record: Record) -> ControlSettings:
        world, control = self._settings.world, self._settings.control
        sizes = Sizes(world.desired, world.min).updated(record)
        return ControlSettings(
            desired=sizes.desired,
            minimum=sizes.minimum,
            join_window_seconds=world.join_window_seconds,
            lease_seconds=control.lease_seconds,
            any_side=control.quorum == "any",
            hang_seconds=self._settings.supervision.hang_timeout_seconds,
        )


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for something that other tasks of this process bring about."""
    while True:
        if holds():
            return
        await asyncio.sleep(POLL_SECONDS)
