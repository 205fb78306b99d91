"""What members do between coming and going: rounds, and the batches they train on."""

import math

from dssync.control import messages as m
from dssync.control.archive import ledger_copy
from dssync.control.departures import Departures
from dssync.control.events import Note
from dssync.control.exchange import Closed
from dssync.control.job import Job, World
from dssync.control.pace import Pace
from dssync.control.roster import Phase
from dssync.control.view import slot_of
from dssync.errors import ProtocolError

LEAD_ROUNDS = 2
"""Rounds beyond one period of the schedule that may be open at the same time."""


HANG_LOOK_SECONDS = 0.5
"""Between two looks at who hangs, which takes minutes to tell."""


class Training:
    """Freezes rounds, takes their results, leases data, ends the job."""

    def __init__(self, job: Job, departures: Departures) -> None:
        self._job = job
        self._departures = departures
        self._published = 0
        self._published_out: tuple[str, ...] = ()
        self._pace = Pace()
        self._holds = False
        self._hang_look_seconds = -math.inf

    # --- data -------------------------------------------------------------------------------

    def register(self, key: str, message: m.Register) -> None:
        """Take in the size of the run; refuse a member that states another."""
        is_first = not self._job.ledger.total
        try:
            self._job.ledger.register(message.tracks, message.epochs)
        except ProtocolError as error:
            self._job.outbox.tell(key, m.Refuse(str(error)))
        if is_first:
            # Before anything is leased: a copy of an earlier history says that it is done.
            self._job.publish()

    def lease(self, key: str, take: m.Take) -> None:
        """Lease batches to a member; it gets more later if there are none now."""
        job, peer = self._job, self._job.roster.peers[key]
        active = peer.phase is Phase.ACTIVE
        batches = job.ledger.take(key, take.count, take.track) if active else ()
        peer.hungry.pop(take.track, None)
        if not batches:
            peer.hungry[take.track] = take
        job.outbox.tell(key, m.Leases(take.track, batches))

    def answer_all(self) -> None:
        """Answer what members had asked an earlier coordinator for."""
        for key in self._job.roster.in_phase(Phase.ACTIVE):
            for take in list(self._job.roster.peers[key].hungry.values()):
                self.lease(key, take)

    def _feed(self) -> None:
        """Offer holes to the members that asked in vain."""
        peers = self._job.roster.peers
        self._job.ledger.fresh_holes = False
        for key in self._job.roster.in_phase(Phase.ACTIVE):
            for take in list(peers[key].hungry.values()):
                if self._job.ledger.available_of(take.track):
                    self.lease(key, take)

    # --- rounds -----------------------------------------------------------------------------

    def message(self, world: World, key: str, message: object, now: float) -> None:
        """Take in what a member says about a round."""
        match message:
            case m.Arrive(round=number):
                self._reached(world, number, now)
                world.rounds.arrive(key, message, now)
            case m.Confirm():
                world.rounds.confirm(key, message, now)
            case m.Applied():
                self._applied(world, key, message, now)
            case m.Abandoned():
                world.rounds.abandoned(key, message, now)
            case m.Failed():
                world.rounds.failed(key, message, now)
            case m.Blob(communicator, _, _):
                for mate in world.rounds.mates(communicator):
                    if mate != key:
                        self._job.outbox.tell(mate, message)
            case m.Moments(layout):
                self._job.roster.peers[key].moments = layout
                world.rounds.changed(key, layout)
            case m.AskFlush():
                world.flush_asked = True
            case m.AskStop():
                world.stop_asked = True
            case _:
                pass

    def _applied(self, world: World, key: str, message: m.Applied, now: float) -> None:
        self._job.roster.peers[key].misses = 0
        # A member that was alone had nobody to arrive for.
        self._reached(world, message.round, now)
        world.rounds.applied(key, message, now)

    def _reached(self, world: World, number: int, now: float) -> None:
        """Note how far the first member is; nobody can be beyond the frozen rounds."""
        reached = min(number, world.rounds.next_round - 1)
        if reached > world.latest_arrival:
            world.pace_seconds = now - world.reached_seconds
            world.latest_arrival, world.reached_seconds = reached, now

    def tick(self, now: float) -> None:
        """Let time go by for the open rounds."""
        world = self._job.world
        if world is not None:
            world.rounds.tick(now)
            if now >= self._hang_look_seconds:
                self._hang_look_seconds = now + HANG_LOOK_SECONDS
                for key in self._hung(world):
                    self._departures.bench(key, "hang", now)
        self._publish(now)

    def _hung(self, world: World) -> list[str]:
        """Return who is waited for without a deadline and has been silent for too long."""
        roster, limit = self._job.roster, self._job.settings.hang_seconds
        awaited: set[str] = set()
        held: set[str] = set()
        for exchange in world.rounds.exchanges():
            awaited.update(key for key in exchange.awaited if key not in held)
            held.update(exchange.held)  # They say nothing either, through no fault of theirs.
        pods = roster.pods
        return [k for k in sorted(awaited) if pods[slot_of(k)].silent_seconds(k) >= limit]

    def _publish(self, now: float) -> None:
        """Send the ledger to all launchers if it has changed; to many of them less often."""
        job = self._job
        changes, put_out = job.ledger.changes, tuple(job.put_out)
        # Who was put out is known everywhere before what it held can be committed by others.
        is_urgent = put_out != self._published_out and job.ledger.total > 0
        if not is_urgent and (
            changes == self._published or not self._pace.is_due(now, len(job.roster.pods))
        ):
            return
        self._published, self._published_out = changes, put_out
        job.publish()

    @property
    def has_results(self) -> bool:
        """Whether rounds have brought something that is not taken in yet."""
        return self._job.world is not None and self._job.world.rounds.has_results

    def advance(self, now: float) -> None:
        """Do what has become possible: take results, freeze, give up a world without members."""
        self._departures.drain_waiting(now)
        world = self._job.world
        if world is None:
            return
        self._take_results(world, now)
        self._mend(world)
        if self._job.ledger.fresh_holes:
            self._feed()
        self._note_hold(now)
        if not self._holds:
            world.rounds.decide(now, self._job.quorum.may_end)
            while self._may_freeze(world):
                self._freeze(world)

    def _note_hold(self, now: float) -> None:
        """Say when rounds begin to wait for the arbiter, and when they no longer do."""
        if self._holds == self._job.may_decide(now):
            self._holds = not self._holds
            missing = ",".join(str(each.slot) for each in self._job.quorum.missing)
            kind, counts = ("holding", f"missing={missing}") if self._holds else ("going_on", "")
            self._job.outbox.note(Note(kind, counts=counts))

    def _take_results(self, world: World, now: float) -> None:
        if not world.rounds.has_results:
            return  # Most of the time.
        committed, world.rounds.committed = world.rounds.committed, []
        for key, batches in committed:
            self._job.ledger.commit(key, batches)
        flushed, world.rounds.flushed = world.rounds.flushed, []
        for number, first in flushed:
            if first in self._job.roster.peers:
                self._job.outbox.tell(first, ledger_copy(self._job, number))
        missed, world.rounds.missed = world.rounds.missed, []
        # Rounds that share a communicator are missed together: that is one miss.
        for key, kind in sorted(set(missed)):
            self._missed(key, kind, now)
        earned, world.rounds.earned = world.rounds.earned, []
        for key, number in earned:
            self._earned(world, key, number)
        closed, world.rounds.closed = world.rounds.closed, []
        for result in closed:
            self._closed(world, result)

    def _earned(self, world: World, key: str, number: int) -> None:
        """A joiner has applied its first sum: its values count from the next frozen round on."""
        if key in world.view.unweighted:
            world.view = world.view.with_weight((key,))
            self._job.outbox.note(Note("contributes", key, round=number))

    def _missed(self, key: str, kind: str, now: float) -> None:
        """Count a missed deadline; a flush waits for nobody twice."""
        peer = self._job.roster.peers.get(key)
        if peer is None:
            return
        peer.misses += 1
        if kind != "train" or peer.misses >= self._job.settings.bench_after_misses:
            self._departures.bench(key, "deadline", now)

    def _closed(self, world: World, result: Closed) -> None:
        self._job.outbox.note(
            Note(
                "round" if result.reform_seconds is None else "reform",
                cause=result.cause,
                seconds=result.reform_seconds or 0.0,
                round=result.round,
            )
        )
        if result.kind == "final":
            world.final_frozen = bool(result.members)
            if result.members:
                self._job.last_view = world.view
                self.complete()

    def _mend(self, world: World) -> None:
        """Keep the job going when nobody is left whose values count, or nobody at all."""
        members, job = world.view.members, self._job
        if members:
            unweighted = world.view.unweighted
            if unweighted and unweighted.issuperset(members):
                world.view = world.view.with_weight(members)
            return
        holding = (Phase.ACTIVE, Phase.DRAINING, Phase.LOADED)
        if not job.completed and not job.roster.in_phase(*holding):
            job.world, job.lost_world = None, world

    def _may_freeze(self, world: World) -> bool:
        """Tell whether the next round is due.

        The first arrival in an earlier one makes it due. Nobody runs further ahead of the
        slowest than the schedule lets it anyway: members whose rounds exchange nothing, because
        nobody in their groups has weight, would otherwise rush through them.
        """
        rounds, over = world.rounds, world.final_frozen or self._job.completed
        if over or not world.view.members or self._job.resigning:
            return False
        ahead = 2 if world.pace_seconds < self._job.settings.ahead_seconds else 1
        if rounds.lead and world.latest_arrival < rounds.next_round - ahead:
            return False
        if rounds.lead >= world.view.period(rounds.settings) + LEAD_ROUNDS:
            return False
        return len(self._job.roster.slots_in(Phase.ACTIVE)) >= self._job.settings.minimum

    def _freeze(self, world: World) -> None:
        kind = "train"
        if self._job.ledger.complete or world.stop_asked:
            kind, world.final_frozen = "final", True
        elif world.flush_asked:
            kind, world.flush_asked = "flush", False
        strict = world.strict or kind != "train"
        layouts = self._job.layouts(world, kind)
        world.rounds.freeze(world.view, kind, strict, self._job.ledger.progress, layouts)

    def complete(self) -> None:
        """End the job: its members hold the final state, latecomers fetch it from them.

        Nobody is told before the record says so: who hears of it leaves, and somebody who took
        over then, without knowing, would end the job again.
        """
        job = self._job
        job.completed = True
        ledger = job.ledger
        counts = f"committed={ledger.committed} total={ledger.total} repeated={ledger.repeated}"
        last_round = job.world.rounds.next_round - 1 if job.world else 0
        job.outbox.note(Note("completed", round=last_round, counts=counts))
        for key in job.roster.in_phase(Phase.FETCHING, Phase.LOADED):
            job.roster.move(key, Phase.ENTERED)
        if job.recorded:
            self._tell_end()

    def recorded(self) -> None:
        """Tell everybody of the end, which nobody can undo or repeat any more."""
        if self._job.completed and not self._job.recorded:
            self._job.recorded = True
            self._tell_end()

    def _tell_end(self) -> None:
        job = self._job
        for key in job.roster.in_phase(Phase.ACTIVE, Phase.DRAINING, Phase.LOADED):
            job.outbox.tell(key, m.Completed(job.ledger.repeated))
        # Last: a launcher that knows takes over from nobody, so its members have to know.
        for slot in job.roster.pods:
            job.outbox.send(slot, m.JobCompleted())
