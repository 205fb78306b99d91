"""The coordinator: membership, views, rounds and the data of one job. Sans IO.

``handle(event, now)`` takes what happened and returns what to send; there is no socket, clock,
random source or task inside, so the simulator runs this very code. The rules are those of
``docs/protocol.md``: the first arrival at round r freezes the view of round r + 1, a group only
shrinks inside a round, joiners enter at the next unfrozen round with weight 0.
"""

import math
from dataclasses import replace

from dssync.control import messages as m
from dssync.control.admission import Admission
from dssync.control.adoption import Electorate, Gathering, adopt, read_report
from dssync.control.archive import Archive
from dssync.control.bulletin import Bulletin
from dssync.control.codec import tag_of
from dssync.control.departures import Departures
from dssync.control.events import (
    Connected,
    ControlSettings,
    Disconnected,
    Effect,
    Event,
    ExitsConfirmed,
    Looked,
    Paused,
    Placed,
    Received,
    Recorded,
    Resigning,
    Resized,
    Ticked,
)
from dssync.control.job import Job, World
from dssync.control.ledger import Ledger
from dssync.control.quorum import Quorum
from dssync.control.roster import Pod, Roster
from dssync.control.takeover import Launcher, Report
from dssync.control.training import Training
from dssync.control.view import View, slot_of
from dssync.errors import ProtocolError
from dssync.schedule import Place


class Coordinator:
    """Decides who takes part in which round and who trains on which batch.

    Args:
        term: number of this coordinatorship.
        settings: numbers of the control plane.
        electorate: whose reports to wait for; nobody's where nobody was here before.
    """

    def __init__(
        self,
        term: int,
        settings: ControlSettings,
        electorate: Electorate | None = None,
    ) -> None:
        self.job = Job(term, settings, quorum=Quorum(any_side=settings.any_side))
        self.gathering = None if electorate is None else Gathering(electorate)
        self._gathered = self.gathering
        """What is known of the term before; late reports join it while nobody holds any state."""
        self._former = () if electorate is None else electorate.launchers
        """Who was there before this term, until it is known who of them is here."""
        self._deferred: list[Event] = []
        self._bulletin = Bulletin(self.job)
        self.archive = Archive(self.job)
        self.departures = Departures(self.job)
        self.admission = Admission(self.job, self.departures)
        self.training = Training(self.job, self.departures)
        self._expiry_seconds = -math.inf
        """No launcher can be given up earlier: looking at each of them at every tick costs."""

    @property
    def roster(self) -> Roster:
        """Launchers and workers."""
        return self.job.roster

    @property
    def ledger(self) -> Ledger:
        """What is done of the data."""
        return self.job.ledger

    @property
    def world(self) -> World | None:
        """The members that train together, once they do."""
        return self.job.world

    @property
    def shown_view(self) -> View | None:
        """Who takes part, or at the end who took part in what completed the job."""
        if self.completed:
            return self.job.last_view
        return None if self.world is None else self.world.view

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """The launchers of the current view."""
        return self._bulletin.launchers

    @property
    def missing(self) -> tuple[Launcher, ...]:
        """Launchers that are missing from it."""
        return self._bulletin.missing

    @property
    def idle(self) -> bool:
        """Whether no round is open, so that nobody loses anything when another takes over."""
        return self.world is None or not self.world.rounds.lead

    @property
    def completed(self) -> bool:
        """Whether the final flush is committed."""
        return self.job.completed

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event and return what to do, in order.

        Raises:
            ProtocolError: the event holds a message that no launcher sends; nothing was changed.
        """
        match event:
            case Received(slot, m.Heartbeat(workers)):
                # Many, and nothing follows from them but that a launcher is there.
                pod = self.job.roster.pods.get(slot)
                if pod is not None:
                    pod.progress = workers
                    self._heard(pod, now)
                return []
        if self.gathering is None:
            self._take(event, now)
        else:
            self._gather(self.gathering, event, now)
        if self.gathering is not None:
            return self.job.outbox.take()
        self.training.advance(now)
        if self.admission.advance(now) or self.training.has_results:
            self.training.advance(now)
        if self.world is not None:
            self._gathered = None
        self.archive.note_view()
        self._bulletin.update(now)
        return self.job.outbox.take()

    def _take(self, event: Event, now: float) -> None:
        match event:
            case Connected(hello, resumed):
                self._connected(hello, now)
                if not resumed:
                    self._bulletin.tell(hello.slot)
            case Disconnected(slot, uid):
                self._disconnected(slot, uid, now)
            case Received(slot, message):
                self._received(slot, message, now)
            case Resized(desired, minimum):
                self.job.settings = replace(self.job.settings, desired=desired, minimum=minimum)
            case Placed(paths):
                self.job.place(paths)
            case Looked(age_seconds):
                self.job.quorum.looked(now - age_seconds)
                self.archive.looked(now)
            case ExitsConfirmed(uids):
                self.departures.confirm_gone(uids, now)
            case Recorded():
                self.training.recorded()
            case Resigning(wanted):
                self.job.resigning = wanted
            case Paused(seconds):
                self._paused(seconds, now)
            case _:
                self._tick(now)

    def _gather(self, gathering: Gathering, event: Event, now: float) -> None:
        """Take in the reports of a new term, and begin it when they are all in."""
        match event:
            case Received(slot, m.Standing() as standing):
                gathering.standings[slot] = standing
                self._deferred.append(event)
            case Received(slot, m.FromMember(key, body)) if tag_of(body) == "Report":
                gathering.reports[_member_of(slot, key)] = read_report(body)
            case Connected(hello):
                known = self.roster.pods.get(hello.slot)
                if known is not None and known.uid != hello.pod_uid:
                    # Another pod in the slot: what the former one said does not concern it.
                    self._deferred = [each for each in self._deferred if not _is_of(hello, each)]
                self._take(event, now)
            case Disconnected() | Looked() | ExitsConfirmed() | Resized() | Placed() | Paused():
                self._take(event, now)
            case Ticked():
                pass
            case _:
                _check(event)
                self._deferred.append(event)
        uids = {slot: pod.uid for slot, pod in self.roster.pods.items()}
        if not gathering.complete(uids, now):
            return
        if self._former:
            self.departures.miss_absent(self._former, now)
            self._former = ()
        # To adopt is to decide: what survivors have confirmed is committed with it.
        if self.job.may_decide(now):
            self.gathering = None
            self._begin_term(gathering, now)

    def _begin_term(self, gathering: Gathering, now: float) -> None:
        """Rebuild the job, then take in what was said while the reports came in."""
        for pod in self.roster.pods.values():
            pod.heard_seconds = now
        if adopt(self.job, gathering) and not self.job.completed:
            self.training.complete()  # First, for a pod that drains would have its world flush.
        for pod in self.roster.pods.values():
            if pod.draining:
                self.departures.drain_pod(pod, now)
        self.admission.open_window(now)
        self.training.answer_all()
        deferred, self._deferred = self._deferred, []
        for event in deferred:
            self._take(event, now)

    # --- launchers --------------------------------------------------------------------------

    def _connected(self, hello: m.Hello, now: float) -> None:
        place = _place_of(hello)
        pods = self.roster.pods
        known = pods.get(hello.slot)
        if known is not None and known.uid != hello.pod_uid:
            self.departures.pod_gone(hello.slot, "replaced", now)
        if hello.slot not in pods:
            pods[hello.slot] = Pod(
                hello.slot,
                hello.pod_uid,
                hello.workers,
                place,
                now,
                address=hello.address,
                process=hello.process,
            )
        pods[hello.slot].lost_seconds = None
        self.departures.confirm_replaced(pods[hello.slot], now)
        self._heard(pods[hello.slot], now)
        if self.job.recorded:
            self.job.outbox.send(hello.slot, m.JobCompleted())

    def _disconnected(self, slot: int, uid: str, now: float) -> None:
        pod = self.roster.pods.get(slot)
        if pod is not None and pod.uid == uid:
            pod.lost_seconds = now
            self._expiry_seconds = -math.inf

    def _received(self, slot: int, message: m.FromLauncher, now: float) -> None:
        pod = self.roster.pods.get(slot)
        if pod is None:
            return
        match message:
            case m.FromMember(key, body):
                self._member_message(_member_of(slot, key), body, now)
            case m.Exited(key, _, restarting):
                self.departures.gone(_member_of(slot, key), "exit", now)
                self.roster.benched.discard(key)
                self.job.put_out.pop(key, None)
                pod.workers -= not restarting
            case m.Drain():
                self.departures.drain_pod(pod, now)
            case m.Standing() as standing:
                pod.workers = standing.workers
                self._hear_late(pod, standing)
            case _:
                pass
        self._heard(pod, now)

    def _hear_late(self, pod: Pod, standing: m.Standing) -> None:
        """Gather again for a launcher of an earlier term: its members may hold the only state.

        Once a world forms it is too late: then they enter again.
        """
        is_open = self.world is None and not (self.completed or self.admission.is_forming)
        if self._gathered is not None and is_open and 0 < standing.ledger.term < self.job.term:
            self.gathering = self._gathered
            self.gathering.standings[pod.slot] = standing
            self.gathering.reopen(pod.uid)

    def _heard(self, pod: Pod, now: float) -> None:
        pod.heard_seconds = now
        self.job.quorum.found(pod.uid)

    def _paused(self, seconds: float, now: float) -> None:
        """Take in a pause: a short one only ages what the arbiter said."""
        if seconds <= self.job.settings.lease_seconds:
            self.job.quorum.aged(seconds)
            return
        self.job.quorum.paused()
        for pod in self.roster.pods.values():
            self.departures.miss(pod, now)

    def _tick(self, now: float) -> None:
        if now >= self._expiry_seconds:
            self._give_up_silent(now)
        self.training.tick(now)
        self.archive.tick(now)

    def _give_up_silent(self, now: float) -> None:
        """Give up who did not come back in time or is silent for too long."""
        settings = self.job.settings
        for slot, pod in list(self.roster.pods.items()):
            lost = pod.lost_seconds
            if lost is not None and now - lost >= settings.reconnect_seconds:
                self.departures.pod_gone(slot, "eof", now)
            elif now - pod.heard_seconds >= settings.lease_seconds:
                # The pod itself stays known: its connection stands, and it may only be frozen. Or
                # the network is cut, and others have another coordinator by now.
                self.departures.miss(pod, now)
                for key in self.roster.of_slot(slot):
                    self.departures.bench(key, "lease", now)
        pods = self.roster.pods.values()
        connected = [pod.heard_seconds for pod in pods if pod.lost_seconds is None]
        if len(connected) == len(pods):
            self._expiry_seconds = min(connected, default=now) + settings.lease_seconds

    # --- members ----------------------------------------------------------------------------

    def _member_message(self, key: str, body: str, now: float) -> None:
        message = m.MEMBER.decode(body)
        world = self.world
        match message:
            case m.Enter():
                self.admission.enter(key, message, now)
            case Report():
                self.admission.late(key, read_report(body), now)
            case m.AskLedger() | m.AskPublish():
                # Also from one that has just left the view.
                self.archive.ask(key, message, now)
            case _ if key not in self.roster.peers:
                self._unknown(key, message)
            case m.Loaded(donor):
                self.admission.loaded(key, donor, now)
            case m.FetchFailed(donor, _):
                self.admission.fetch_failed(key, donor)
            case m.Resumed(ledger):
                self.admission.resumed(key, ledger)
            case m.Register():
                self.training.register(key, message)
            case m.Take():
                self.training.lease(key, message)
            case m.Leave(reason):
                self.departures.gone(key, reason, now)
            case _ if world is not None:
                self.training.message(world, key, message, now)
            case _:
                pass

    def _unknown(self, key: str, message: object) -> None:
        if isinstance(message, m.Arrive | m.Take | m.Loaded | m.Applied):
            self.departures.tell_benched(key, "the coordinator does not know this member")


def _check(event: Event) -> None:
    """Refuse what cannot be taken in later, when nobody would know whose fault that is.

    Raises:
        ProtocolError: it is nothing that a launcher or its members say.
    """
    match event:
        case Received(slot, m.FromMember(key, body)):
            _member_of(slot, key)
            m.MEMBER.decode(body)
        case Received(slot, m.Exited(key)):
            _member_of(slot, key)


def _is_of(hello: m.Hello, event: Event) -> bool:
    """Tell whether an event is what a launcher of the same slot has said."""
    return isinstance(event, Received) and event.slot == hello.slot


def _member_of(slot: int, key: str) -> str:
    """Return a member's key after a check that this launcher may speak for it.

    Raises:
        ProtocolError: it is no key, or one of another slot.
    """
    if slot_of(key) != slot:
        raise ProtocolError(f"the launcher of slot {slot} speaks for member {key!r}")
    return key


def _place_of(hello: m.Hello) -> Place:
    """Return where a launcher runs.

    Raises:
        ProtocolError: the hello names no place, or no workers.
    """
    if len(hello.place) != 3 or hello.workers < 1:
        raise ProtocolError(
            f"the launcher of slot {hello.slot} announces {hello.workers} workers at "
            f"{hello.place!r}: expected 1 or more, and zone, rack and node"
        )
    return Place(*hello.place)
