"""Deliberate bugs in rounds, membership and data: real parts with one rule broken each."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.admission import Admission
from dssync.control.archive import Archive, ledger_copy
from dssync.control.coordinator import Coordinator
from dssync.control.departures import Departures
from dssync.control.directory import Directory
from dssync.control.exchange import Exchange
from dssync.control.job import Job, World
from dssync.control.ledger import Ledger
from dssync.control.member import MemberState
from dssync.control.roster import Pod
from dssync.control.rounds import Rounds
from dssync.control.session import Session
from dssync.control.training import Training
from dssync.control.view import View, slot_of
from simulation.asks import LAYOUT
from simulation.mutantterms import GRUDGE_SECONDS


class FreezesTwice(Admission):
    """A join after the freeze of a round freezes that round again on the new view."""

    def _admit(self, key: str, world: World) -> None:
        super()._admit(key, world)
        if world.rounds.next_round > 2:
            world.rounds.next_round -= 1
            world.rounds.freeze(world.view, "train", world.strict)


class JoinerHasWeight(Admission):
    """The values of a joiner count at once."""

    def _admit(self, key: str, world: World) -> None:
        super()._admit(key, world)
        world.view = world.view.with_weight((key,))


class StartsInFrozenRound(Admission):
    """A joiner starts in a round that was frozen without it."""

    def _admit(self, key: str, world: World) -> None:
        super()._admit(key, world)
        if world.rounds.next_round:
            self._job.outbox.tell(key, m.Start(world.rounds.next_round - 1, 0, False))


class ReusesBroken(Directory):
    """A communicator is used again after its operation was given up."""

    def break_(self, communicator: str) -> None:
        pass


class RepeatsIds(Directory):
    """A communicator that was broken gets its old id when it is built again."""

    def _new_id(self, members: tuple[str, ...]) -> str:
        self._builds = 0
        return super()._new_id(members)


class RetriesEarly(Rounds):
    """The next attempt does not wait for the answers of all members."""

    def _settle(self, exchange: Exchange, now: float) -> None:
        if exchange.collecting and exchange.abandoned and not exchange.closed:
            exchange.abandoned.update(exchange.waiting)
        super()._settle(exchange, now)


class CommitsEarly(Rounds):
    """Strict: the first confirmation decides."""

    def confirm(self, key: str, message: m.Confirm, now: float) -> None:
        exchange = self._find(key, message.round)
        if exchange is not None and exchange.attempt == message.attempt:
            exchange.confirmed |= dict.fromkeys(exchange.members, ())
        super().confirm(key, message, now)


class TellsNothingEarlier(Rounds):
    """What a pod has committed for itself is known to nobody else who takes its values."""

    def _decide(self, exchange: Exchange, now: float) -> None:
        self.hearsay.covered()
        super()._decide(exchange, now)


class Regrows(Rounds):
    """A retry takes in again who has applied already."""

    def _settle(self, exchange: Exchange, now: float) -> None:
        again = exchange.collected and not exchange.closed
        members, applied = exchange.members, set(exchange.applied)
        if again:
            exchange.applied -= applied
            exchange.abandoned.update(applied)
        super()._settle(exchange, now)
        if again:
            exchange.members = members


class BlamesHeldMembers(Rounds):
    """Who is held up in a lower round is skipped in the next one."""

    def tick(self, now: float) -> None:
        for exchange in self.exchanges():
            if exchange.deadline_seconds is not None and now >= exchange.deadline_seconds:
                self._expire(exchange, now)
                self._settle(exchange, now)


class FlushSkips(Rounds):
    """A flush goes on without a late member as a training round does."""

    def _miss(self, exchange: Exchange, late: tuple[str, ...]) -> None:
        kind, exchange.kind = exchange.kind, "train"
        super()._miss(exchange, late)
        exchange.kind = kind


class AbandonsAlone(Rounds):
    """Other rounds keep the communicators of an attempt that is given up."""

    def _entangled(self, exchange: Exchange) -> list[Exchange]:
        return [exchange]


class KeepsWeights(Rounds):
    """A retry keeps the weights of the larger group."""

    def _assign(self, exchange: Exchange) -> None:
        self._lost = exchange.attempt > 0
        super()._assign(exchange)

    def _stages(self, exchange: Exchange) -> dict[str, tuple[m.Stage, ...]]:
        stages = super()._stages(exchange)
        if not exchange.attempt:
            return stages
        return {key: tuple(_scaled(s, 0.75) for s in each) for key, each in stages.items()}


def _scaled(stage: m.Stage, factor: float) -> m.Stage:
    return m.Stage(stage.communicator, stage.members, stage.weight * factor)


class KeepsLeases(Ledger):
    """What a lost member held is lost with it."""

    def release(self, member: str) -> int:
        return 0


class CountsTwice(Ledger):
    """Of several batches in one commit, all but the first count twice."""

    def commit(self, member: str, batches: Iterable[int]) -> None:
        listed = tuple(batches)
        super().commit(member, listed)
        self.committed += len(listed[1:])


class NeverFeeds(Training):
    """Who asked for batches in vain gets none when there are some again."""

    def _feed(self) -> None:
        self._job.ledger.fresh_holes = False


class FlushesOldView(Training):
    """The final flush leaves out the last member of the view."""

    def _freeze(self, world: World) -> None:
        view = world.view
        if self._job.ledger.complete and len(view.members) > 1:
            world.view = View.without(view, view.members[-1], world.rounds.settings)
        super()._freeze(world)


class IgnoresStops(Training):
    """Nobody hears who asks for an early end."""

    def message(self, world: World, key: str, message: object, now: float) -> None:
        if not isinstance(message, m.AskStop):
            super().message(world, key, message, now)


class AveragesAnything(Job):
    """The state of optimizers is averaged whether or not all have one."""

    def layouts(self, world: World, kind: str) -> Mapping[str, str]:
        return dict.fromkeys(world.view.members, LAYOUT)


class SavesLeasesAsDone(Archive):
    """A checkpoint of one member has for done what others are training on."""

    def ask(self, key: str, message: m.AskLedger | m.AskPublish, now: float) -> None:
        if isinstance(message, m.AskLedger):
            copy = ledger_copy(self._job, message.round)
            tracks = tuple(replace(track, open=()) for track in copy.ledger.tracks)
            self._job.outbox.tell(key, replace(copy, ledger=replace(copy.ledger, tracks=tracks)))
        else:
            super().ask(key, message, now)


class BearsGrudges(Departures):
    """A launcher that was silent for a lease once is put out again when all has long been well."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._silent: dict[int, float] = {}

    def bench(self, key: str, cause: str, now: float) -> None:
        super().bench(key, cause, now)
        if cause == "lease":
            self._silent.setdefault(slot_of(key), now)

    def drain_waiting(self, now: float) -> None:
        """Called with each event."""
        super().drain_waiting(now)
        due = [slot for slot, since in self._silent.items() if now - since > GRUDGE_SECONDS]
        for slot in due:
            del self._silent[slot]
            for key in self._job.roster.of_slot(slot):
                super().bench(key, "lease", now)


class DrainsAtOnce(Departures):
    """A draining pod is dropped from the rounds that it is in."""

    def drain_pod(self, pod: Pod, now: float) -> None:
        super().drain_pod(pod, now)
        for key in self._job.roster.of_slot(pod.slot):
            self.gone(key, "drain", pod.heard_seconds)


class ForgetsFrozenPods(Coordinator):
    """A pod whose lease ran out is unknown, although its connection stands."""

    def _tick(self, now: float) -> None:
        for slot, pod in list(self.roster.pods.items()):
            if now - pod.heard_seconds >= self.job.settings.lease_seconds:
                self.departures.pod_gone(slot, "lease", now)
        super()._tick(now)


class BelievesAccusers(Coordinator):
    """Whoever is named by a failed operation is put out."""

    def _member_message(self, key: str, body: str, now: float) -> None:
        message = m.MEMBER.decode(body)
        super()._member_message(key, body, now)
        world = self.world
        if isinstance(message, m.Failed) and world is not None:
            groups = [e.members for e in world.rounds.exchanges() if key in e.members]
            for mate in groups[0][:1] if groups else ():
                self.departures.bench(mate, "deadline", now)


class AppliesAfterAbandon(MemberState):
    """A member that has answered ``Abandoned`` goes on with the attempt."""

    def _abandon(self, number: int, attempt: int) -> list[m.FromMemberBody]:
        return [] if number < self.next_round else [m.Abandoned(number, attempt)]


class AnswersOnlyNow(MemberState):
    """A member answers ``Abandon`` only for the round that it is in."""

    def _abandon(self, number: int, attempt: int) -> list[m.FromMemberBody]:
        return [] if number > self.next_round else super()._abandon(number, attempt)


class TrainsUnweighted(MemberState):
    """A joiner trains at once, although its first sum will replace what it learns."""

    def _start(self, start: m.Start) -> None:
        super()._start(start)
        self.weighted = True


class StaysInRound(MemberState):
    """A skipped member waits for its round to begin again."""

    def _skip(self, number: int) -> None:
        self._assigns.pop(number, None)


class ForgetsMessages(Session):
    """What was under way when a connection broke is lost."""

    def resume(self) -> list[bytes]:
        self._unacknowledged.clear()
        return []
