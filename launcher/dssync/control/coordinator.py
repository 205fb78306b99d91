"""The coordinator: membership, views, rounds and the data of one job. Sans IO.

``handle(event, now)`` takes what happened and returns what to send; there is no socket, clock,
random source or task inside, so the simulator runs this very code. The rules are those of
``docs/protocol.md``: the first arrival at round r freezes the view of round r + 1, a group only
shrinks inside a round, joiners enter at the next unfrozen round with weight 0.
"""

from dataclasses import dataclass, replace

from dssync.control import messages as m
from dssync.control.events import (
    Connected,
    ControlSettings,
    Disconnected,
    Effect,
    Event,
    Note,
    Received,
    Resized,
    Send,
)
from dssync.control.ledger import Ledger
from dssync.control.roster import Peer, Phase, Pod, Roster
from dssync.control.rounds import Rounds
from dssync.control.view import Member, View
from dssync.errors import ProtocolError, ScheduleError
from dssync.schedule import Place, Settings


@dataclass
class World:
    """The members that train together and their rounds; exists once the job has formed."""

    view: View
    rounds: Rounds
    strict: bool
    latest_arrival: int = -1
    """Highest round that a member has arrived at."""


class Coordinator:
    """Decides who takes part in which round and who trains on which batch.

    Args:
        term: number of this coordinatorship.
        settings: numbers of the control plane.
    """

    def __init__(self, term: int, settings: ControlSettings) -> None:
        self.term = term
        self.settings = settings
        self.roster = Roster()
        self.world: World | None = None
        self.ledger = Ledger()
        self.completed = False
        self._out: list[Effect] = []
        self._window_opened: float | None = None
        self._forming: list[str] = []
        self._flush_asked = False
        self._stop_asked = False
        self._final_frozen = False
        self._donations = 0

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event and return what to do, in order."""
        match event:
            case Connected(hello):
                self._connected(hello, now)
            case Disconnected(slot, uid):
                pod = self.roster.pods.get(slot)
                if pod is not None and pod.uid == uid:
                    pod.lost_seconds = now
            case Received(slot, message):
                self._received(slot, message, now)
            case Resized(desired, minimum):
                self.settings = replace(self.settings, desired=desired, minimum=minimum)
            case _:
                self._tick(now)
        self._advance(now)
        effects, self._out = self._out, []
        return effects

    # --- launchers --------------------------------------------------------------------------

    def _connected(self, hello: m.Hello, now: float) -> None:
        known = self.roster.pods.get(hello.slot)
        if known is not None and known.uid != hello.pod_uid:
            self._pod_gone(hello.slot, "replaced", now)
        pod = self.roster.pods.get(hello.slot)
        if pod is None:
            place = Place(*hello.place)
            pod = Pod(hello.slot, hello.pod_uid, hello.workers, place, now)
            self.roster.pods[hello.slot] = pod
        pod.heard_seconds, pod.lost_seconds = now, None
        if self.completed:
            self._out.append(Send(hello.slot, m.JobCompleted()))

    def _received(self, slot: int, message: m.FromLauncher, now: float) -> None:
        pod = self.roster.pods.get(slot)
        if pod is None:
            return
        pod.heard_seconds = now
        match message:
            case m.FromMember(key, body):
                self._member_message(slot, key, body, now)
            case m.Exited(key, _, _):
                self._gone(key, "exit", now)
            case m.Drain():
                self._drain_pod(pod)
            case _:
                pass

    def _tick(self, now: float) -> None:
        for slot, pod in list(self.roster.pods.items()):
            lost = pod.lost_seconds
            if lost is not None and now - lost >= self.settings.reconnect_seconds:
                self._pod_gone(slot, "eof", now)
            elif now - pod.heard_seconds >= self.settings.lease_seconds:
                self._pod_gone(slot, "lease", now)
        if self.world is not None:
            self.world.rounds.tick(now)

    def _pod_gone(self, slot: int, cause: str, now: float) -> None:
        del self.roster.pods[slot]
        for key in self.roster.of_slot(slot):
            self._gone(key, cause, now)

    def _drain_pod(self, pod: Pod) -> None:
        pod.draining = True
        for key in self.roster.of_slot(pod.slot):
            self._drain(key)
        self._pod_drained(pod.slot)

    def _pod_drained(self, slot: int) -> None:
        pod = self.roster.pods.get(slot)
        if pod is not None and pod.draining and not self.roster.of_slot(slot):
            self._out.append(Send(slot, m.Drained()))

    # --- members ----------------------------------------------------------------------------

    def _member_message(self, slot: int, key: str, body: str, now: float) -> None:
        message = m.MEMBER.decode(body.encode())
        if isinstance(message, m.Enter):
            self._enter(slot, key, message, now)
            return
        peer = self.roster.peers.get(key)
        if peer is None:
            if isinstance(message, m.Arrive | m.Take | m.Loaded | m.Applied):
                self._tell(key, m.Bench("the coordinator does not know this member"), slot)
            return
        match message:
            case m.Loaded(donor):
                self._loaded(key, donor)
            case m.FetchFailed(donor, _):
                self._send_to_donor(key, avoid=donor)
            case m.Register(batches_per_epoch, epochs):
                self._register(key, batches_per_epoch, epochs)
            case m.Take(count):
                self._lease(key, count)
            case m.AskFlush():
                self._flush_asked = True
            case m.AskStop():
                self._stop_asked = True
            case m.Leave(reason):
                self._gone(key, reason, now)
            case _ if self.world is not None:
                self._round_message(self.world, key, message, now)
            case _:
                pass

    def _round_message(self, world: World, key: str, message: object, now: float) -> None:
        match message:
            case m.Blob(communicator, _, _):
                for mate in world.rounds.mates(communicator):
                    if mate != key:
                        self._tell(mate, message)
            case m.Arrive(round=number):
                world.latest_arrival = max(world.latest_arrival, number)
                world.rounds.arrive(key, message, now)
            case m.Confirm():
                world.rounds.confirm(key, message)
            case m.Applied(batches=batches):
                self.roster.peers[key].misses = 0
                self.ledger.commit(key, batches)
                world.rounds.applied(key, message, now)
            case m.Abandoned():
                world.rounds.abandoned(key, message, now)
            case m.Failed():
                world.rounds.failed(key, message, now)
            case _:
                pass

    def _enter(self, slot: int, key: str, message: m.Enter, now: float) -> None:
        self._gone(key, "leave", now)
        if self.completed and not self.roster.in_phase(Phase.ACTIVE):
            self._tell(key, m.Completed(self.ledger.repeated), slot)
            return
        try:
            self._check(message)
        except (ProtocolError, ScheduleError) as error:
            self._tell(key, m.Refuse(str(error)), slot)
            return
        self.roster.peers[key] = Peer(
            Member.parse(key), message.model, message.sync, message.state_address
        )
        self._window_opened = now if self._window_opened is None else self._window_opened
        if self.world is not None:
            self._send_to_donor(key)

    def _check(self, message: m.Enter) -> None:
        Settings(message.sync.mode, message.sync.group_size, message.sync.seed)
        reference = next(iter(self.roster.peers.values()), None)
        if reference is None:
            return
        if message.sync != reference.sync:
            raise ProtocolError(
                f"GroupSync has {message.sync} here but {reference.sync} in the other members: "
                "use the same settings everywhere"
            )
        if message.model != reference.model:
            raise ProtocolError(model_difference(message.model, reference.model))

    def _send_to_donor(self, key: str, avoid: str = "") -> None:
        """Send a joiner to the donor whose turn it is; it waits where there is none."""
        peer = self.roster.peers[key]
        source = Phase.LOADED if self.world is None else Phase.ACTIVE
        donors = [d for d in self.roster.in_phase(source) if d not in (avoid, key)]
        if not donors:
            peer.phase = Phase.ENTERED
            return
        self._donations += 1
        peer.donor = donors[self._donations % len(donors)]
        peer.phase = Phase.FETCHING
        self._tell(key, m.Fetch(peer.donor, self.roster.peers[peer.donor].address))

    def _loaded(self, key: str, donor: str) -> None:
        peer = self.roster.peers[key]
        if peer.phase is not Phase.FETCHING or peer.donor != donor:
            return
        peer.phase = Phase.LOADED
        if self.completed:
            self._tell(key, m.Completed(self.ledger.repeated))
        elif self.world is not None and not self._final_frozen:
            self._admit(key, self.world)

    def _admit(self, key: str, world: World) -> None:
        peer = self.roster.peers[key]
        if key not in world.view:
            place = self.roster.pods[peer.member.slot].place
            world.view = world.view.with_joiner(key, place, world.rounds.settings)
        peer.phase = Phase.ACTIVE
        first_round = world.rounds.next_round
        weighted = key not in world.view.unweighted
        self._tell(key, m.Start(first_round, world.view.members.index(key), weighted))
        self._out.append(Note("join", key, round=first_round))

    def _drain(self, key: str) -> None:
        peer = self.roster.peers[key]
        last_round = -1
        if peer.phase is Phase.ACTIVE and self.world is not None:
            self._remove_from_view(key)
            last_round = max(self.world.rounds.holding(key), default=-1)
        peer.phase = Phase.DRAINING
        self._tell(key, m.LastRound(last_round))
        self._out.append(Note("leave", key, "drain", round=last_round))

    def _gone(self, key: str, cause: str, now: float) -> None:
        peer = self.roster.peers.pop(key, None)
        if peer is None:
            return
        if cause in ("lease", "bench"):
            self._tell(key, m.Bench(cause), peer.member.slot)
        self._remove_from_view(key)
        self.ledger.release(key)
        if self.world is not None:
            self.world.rounds.gone(key, cause, now)
        self._forming = [each for each in self._forming if each != key]
        self._feed()
        self._pod_drained(peer.member.slot)
        if peer.phase is not Phase.DRAINING and not self.completed:
            self._out.append(Note("leave" if cause == "leave" else "evict", key, cause))

    def _remove_from_view(self, key: str) -> None:
        world = self.world
        if world is not None and key in world.view:
            world.view = world.view.without(key, world.rounds.settings)

    # --- data -------------------------------------------------------------------------------

    def _register(self, key: str, batches_per_epoch: int, epochs: int) -> None:
        try:
            self.ledger.register(batches_per_epoch, epochs)
        except ProtocolError as error:
            self._tell(key, m.Refuse(str(error)))

    def _lease(self, key: str, count: int) -> None:
        peer = self.roster.peers[key]
        batches = self.ledger.take(key, count) if peer.phase is Phase.ACTIVE else ()
        peer.hungry = 0 if batches else count
        self._tell(key, m.Leases(batches, self.ledger.progress))

    def _feed(self) -> None:
        """Offer holes to the members that asked in vain."""
        for key in self.roster.in_phase(Phase.ACTIVE):
            if self.roster.peers[key].hungry and self.ledger.available:
                self._lease(key, self.roster.peers[key].hungry)

    # --- rounds -----------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Do what has become possible: form the world, take results, freeze, finish."""
        if self.world is None:
            self._form(now)
        if self.world is None:
            return
        self._take_results(self.world, now)
        self._mend(self.world)
        while self.world is not None and self._may_freeze(self.world):
            self._freeze(self.world)

    def _form(self, now: float) -> None:
        """Bring the members of the first world to one state, then start round 0."""
        if not self._forming:
            self._forming = self._first_members(now)
        peers = self.roster.peers
        if not self._forming:
            return
        if all(peers[key].phase is not Phase.LOADED for key in self._forming):
            # The lowest slot's initial values go to everybody.
            peers[self._forming[0]].phase = Phase.LOADED
        for key in self._forming:
            if peers[key].phase is Phase.ENTERED:
                self._send_to_donor(key)
        if all(peers[key].phase is Phase.LOADED for key in self._forming):
            self._begin(self._forming)

    def _first_members(self, now: float) -> list[str]:
        """Return who is in the first world, or nobody if it has to wait."""
        slots = self.roster.complete_slots()
        opened = now if self._window_opened is None else self._window_opened
        over = now - opened >= self.settings.join_window_seconds
        if len(slots) < (self.settings.minimum if over else self.settings.desired):
            return []
        entered = self.roster.in_phase(Phase.ENTERED)
        return [key for key in entered if self.roster.peers[key].member.slot in slots]

    def _begin(self, members: list[str]) -> None:
        peers = self.roster.peers
        sync = peers[members[0]].sync
        places = [(key, self.roster.pods[peers[key].member.slot].place) for key in members]
        settings = Settings(sync.mode, sync.group_size, sync.seed)
        rounds = Rounds(self.term, settings, self.settings.deadline, self._tell)
        self.world = World(View.first(self.term, places), rounds, sync.commit == "strict")
        self._forming = []
        for key in self.world.view.members:
            self._admit(key, self.world)
        for key in self.roster.in_phase(Phase.ENTERED):
            self._send_to_donor(key)

    def _mend(self, world: World) -> None:
        """Keep the job going when nobody is left whose values count, or nobody at all."""
        members = world.view.members
        if members and world.view.unweighted.issuperset(members):
            world.view = world.view.with_weight(members)
        alive = (Phase.ACTIVE, Phase.DRAINING, Phase.LOADED, Phase.FETCHING)
        if not members and not self.completed and not self.roster.in_phase(*alive):
            # The trained state is lost with its last holder; what enters now starts again.
            self.world, self.ledger = None, Ledger()
            self._final_frozen = self._stop_asked = self._flush_asked = False
            self._out.append(Note("restarted_job"))

    def _may_freeze(self, world: World) -> bool:
        if self._final_frozen or not world.view.members:
            return False
        if len(self.roster.slots_in(Phase.ACTIVE)) < self.settings.minimum:
            return False
        return world.latest_arrival >= world.rounds.next_round - 1 or world.rounds.idle

    def _freeze(self, world: World) -> None:
        kind = "train"
        if self.ledger.complete or self._stop_asked:
            kind, self._final_frozen = "final", True
        elif self._flush_asked:
            kind, self._flush_asked = "flush", False
        world.rounds.freeze(world.view, kind, world.strict or kind != "train")

    def _take_results(self, world: World, now: float) -> None:
        missed, world.rounds.missed = world.rounds.missed, []
        for key in missed:
            self._missed(key, now)
        closed, world.rounds.closed = world.rounds.closed, []
        for result in closed:
            world.view = world.view.with_weight(result.earned_weight)
            self._out.append(
                Note(
                    "round" if result.reform_seconds is None else "reform",
                    cause=result.cause,
                    seconds=result.reform_seconds or 0.0,
                    round=result.round,
                )
            )
            if result.kind == "final" and result.members:
                self._complete()

    def _missed(self, key: str, now: float) -> None:
        peer = self.roster.peers.get(key)
        if peer is None:
            return
        peer.misses += 1
        if peer.misses >= self.settings.bench_after_misses:
            self._gone(key, "bench", now)

    def _complete(self) -> None:
        self.completed = True
        self._out.append(Note("completed"))
        for slot in self.roster.pods:
            self._out.append(Send(slot, m.JobCompleted()))
        for key in self.roster.in_phase(Phase.ACTIVE, Phase.DRAINING):
            self._tell(key, m.Completed(self.ledger.repeated))
        for key in self.roster.in_phase(Phase.ENTERED, Phase.FETCHING, Phase.LOADED):
            # Latecomers get the final state from a member that has it.
            self._send_to_donor(key)

    def _tell(self, key: str, message: m.ToMemberBody, slot: int | None = None) -> None:
        if slot is None:
            peer = self.roster.peers.get(key)
            if peer is None:
                return
            slot = peer.member.slot
        body = m.TO_MEMBER.encode(message).decode()
        self._out.append(Send(slot, m.ToMember(key, body)))


def model_difference(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    """Return a sentence that names the first tensor in which two models differ."""
    for mine, theirs in zip(here, there, strict=False):
        if mine != theirs:
            return (
                f"the model differs from that of the other members: tensor {mine!r} here is "
                f"{theirs!r} there (name, dtype, shape): build the same model in every worker"
            )
    return (
        f"the model has {len(here)} averaged tensors here and {len(there)} in the other members: "
        "build the same model in every worker"
    )
