"""How members come in: hello, donor, state, view.

The first world forms from the members of complete pods; one of them gives its state to the
others. Whoever comes later gets state from a member and enters at the next unfrozen round with
weight 0.
"""

from dssync.control import messages as m
from dssync.control.adoption import hello_of
from dssync.control.departures import Departures
from dssync.control.events import Note
from dssync.control.job import Job, World
from dssync.control.ledger import Ledger
from dssync.control.roster import Peer, Phase
from dssync.control.takeover import Report
from dssync.control.view import View, slot_of
from dssync.errors import ProtocolError, ScheduleError
from dssync.schedule import Settings


class Admission:
    """Lets members into a job."""

    def __init__(self, job: Job, departures: Departures) -> None:
        self._job = job
        self._departures = departures
        self._window_opened: float | None = None
        self._forming: tuple[str, ...] = ()
        """Members of the world that is forming, the source of its state first."""
        self._donations = 0

    def enter(self, key: str, message: m.Enter, now: float) -> None:
        """Take in a hello; a member that was here before starts anew."""
        roster, outbox = self._job.roster, self._job.outbox
        self._departures.gone(key, "leave", now)
        roster.benched.discard(key)
        self._job.put_out.pop(key, None)
        if roster.pods[slot_of(key)].draining:
            outbox.tell(key, m.LastRound(-1))
            return
        try:
            self._check(message)
        except (ProtocolError, ScheduleError) as error:
            outbox.tell(key, m.Refuse(str(error)))
            return
        roster.add(key, Peer.of(key, message))
        if self._window_opened is None:
            self._window_opened = now

    @property
    def is_forming(self) -> bool:
        """Whether the members of the first world are brought to one state."""
        return bool(self._forming)

    def open_window(self, now: float) -> None:
        """Let the first world wait for more pods from now on."""
        self._window_opened = now

    def late(self, key: str, report: Report, now: float) -> None:
        """Take in a member whose report comes when the view of the term stands already."""
        roster = self._job.roster
        if report.term != self._job.term or key in roster.peers or not report.enter:
            return
        if report.started:
            self._departures.tell_benched(key, "its report came too late for the new term")
            return
        self.enter(key, hello_of(report), now)
        donor = roster.peers.get(report.donor)
        if key in roster.peers and donor is not None and donor.phase is Phase.ACTIVE:
            roster.move(key, Phase.LOADED)

    def loaded(self, key: str, donor: str, now: float) -> None:
        """A member holds its donor's state."""
        job, peer = self._job, self._job.roster.peers[key]
        if peer.phase is not Phase.FETCHING or peer.donor != donor:
            return
        peer.loaded_seconds = now
        job.roster.move(key, Phase.LOADED)
        if job.recorded:
            job.outbox.tell(key, m.Completed(job.ledger.repeated))

    def resumed(self, key: str, ledger: m.LedgerState | None) -> None:
        """A member holds a checkpoint's state, or has found none and keeps its initial values."""
        job, peer = self._job, self._job.roster.peers[key]
        if peer.phase is not Phase.FETCHING or peer.donor != key:
            return
        if ledger is None:
            self._start_anew()
        else:
            self._count_anew(Ledger.restored(ledger))
            counts = f"committed={job.ledger.committed} total={job.ledger.total}"
            job.outbox.note(Note("resumed", key, counts=counts))
        peer.donor = ""
        job.roster.move(key, Phase.LOADED)

    def fetch_failed(self, key: str, donor: str) -> None:
        """A member could not get the state of its donor."""
        peer = self._job.roster.peers[key]
        if peer.phase is Phase.FETCHING and peer.donor == donor:
            self._job.roster.move(key, Phase.ENTERED)
            peer.avoid = donor

    def advance(self, now: float) -> bool:
        """Do what has become possible: form the world, find donors, admit.

        Returns:
            Whether there was anybody to look at.
        """
        roster = self._job.roster
        if self._job.world is None and not self._job.completed:
            self._form(now)
        elif roster.count(Phase.ENTERED) or roster.count(Phase.LOADED):
            self._serve(roster.in_phase(Phase.ENTERED), Phase.ACTIVE)
        else:
            return False
        world = self._job.world
        if world is not None and not world.final_frozen:
            for key in roster.in_phase(Phase.LOADED):
                # Members of the first world are in its view already: the others count on them.
                if key in world.view or not self._has_mates_to_come(key, now):
                    self._admit(key, world)
        return True

    # --- the first world --------------------------------------------------------------------

    def _form(self, now: float) -> None:
        """Bring the members of the first world to one state, then start."""
        roster, peers = self._job.roster, self._job.roster.peers
        if self._forming and roster.count(Phase.FETCHING) and not roster.count(Phase.ENTERED):
            return  # For most of the time: looking at every member after each message costs.
        self._forming = tuple(key for key in self._forming if key in peers)
        if not self._forming:
            self._forming = self._first_members(now)
        holders = [key for key in self._forming if peers[key].phase is Phase.LOADED]
        fresh = [key for key in self._forming if peers[key].phase is Phase.ENTERED]
        resuming = any(peers[key].donor == key for key in self._forming)
        if not holders and fresh and not resuming:
            self._choose_source(fresh)
        self._serve(
            [key for key in self._forming if peers[key].phase is Phase.ENTERED], Phase.LOADED
        )
        if self._forming and all(peers[key].phase is Phase.LOADED for key in self._forming):
            self._begin(self._forming)

    def _first_members(self, now: float) -> tuple[str, ...]:
        """Return who is in the first world, or nobody if it has to wait."""
        settings, roster = self._job.settings, self._job.roster
        opened = now if self._window_opened is None else self._window_opened
        over = now - opened >= settings.join_window_seconds
        wanted = settings.minimum if over else settings.desired
        if len(roster.peers) < wanted:
            return ()  # Most of the time, and looking at every slot costs.
        slots = roster.complete_slots()
        if len(slots) < wanted:
            return ()
        entered = roster.in_phase(Phase.ENTERED)
        return tuple(key for key in entered if roster.peers[key].member.slot in slots)

    def _choose_source(self, fresh: list[str]) -> None:
        """Choose the most advanced state, else the initial values of the lowest slot."""
        job, peers = self._job, self._job.roster.peers
        source = max(fresh, key=lambda key: peers[key].applied_round)
        if peers[source].applied_round < 0 and peers[source].resumes:
            peers[source].donor = source
            job.roster.move(source, Phase.FETCHING)
            job.outbox.tell(source, m.Resume())
            return
        job.roster.move(source, Phase.LOADED)
        if peers[source].applied_round < 0:
            self._start_anew()

    def _start_anew(self) -> None:
        """The trained state was lost with its last holder: the data count anew as well."""
        job = self._job
        if job.lost_world is not None or job.ledger.total:
            self._count_anew(job.ledger.renewed())
            job.outbox.note(Note("restarted_job"))

    def _count_anew(self, ledger: Ledger) -> None:
        """Take another ledger, which launchers have before anything of it is leased.

        An older copy may say of more that it is done.
        """
        job = self._job
        job.restarts += job.lost_world is not None or job.ledger.total > 0
        job.ledger = ledger
        job.publish()

    def _begin(self, members: tuple[str, ...]) -> None:
        job, peers = self._job, self._job.roster.peers
        sync, lost = peers[members[0]].sync, job.lost_world
        settings = Settings(sync.mode, sync.group_size, sync.seed)
        places = [(key, job.roster.place_of(key)) for key in members]
        if lost is None:
            rounds = job.new_rounds(settings)
            view = View.first(job.term, places)
        else:
            rounds, rounds.settings = lost.rounds, settings
            view = View.first(job.term, places, lost.view.sequence + 1)
        # A state may be of a term that no other survivor knows; its rounds had their results.
        applied = max(peers[key].applied_round for key in members)
        rounds.next_round = max(rounds.next_round, applied + 1)
        latest = rounds.next_round - 1
        job.world = World(view, rounds, sync.commit == "strict", latest)
        job.lost_world, self._forming = None, ()

    # --- joiners ----------------------------------------------------------------------------

    def _check(self, message: m.Enter) -> None:
        Settings(message.sync.mode, message.sync.group_size, message.sync.seed)
        reference = next(iter(self._job.roster.peers.values()), None)
        if reference is None:
            return
        if message.sync != reference.sync:
            raise ProtocolError(
                f"GroupSync has {message.sync} here but {reference.sync} in the other members: "
                "use the same settings everywhere"
            )
        if message.model != reference.model:
            raise ProtocolError(model_difference(message.model, reference.model))

    def _serve(self, keys: list[str], holding: Phase) -> None:
        """Send members without state to those that hold it, in turn."""
        donors = self._job.roster.in_phase(holding) if keys else []
        for key in keys:
            if donors:
                self._send_to_donor(key, donors)
            elif self._job.recorded:
                # Nobody who has the final state is left; a checkpoint may have it.
                self._job.outbox.tell(key, m.Completed(self._job.ledger.repeated))
                self._job.roster.remove(key)

    def _send_to_donor(self, key: str, donors: list[str]) -> None:
        peers = self._job.roster.peers
        others = [donor for donor in donors if donor != peers[key].avoid] or donors
        self._donations += 1
        donor = others[self._donations % len(others)]
        peers[key].donor, peers[key].avoid = donor, ""
        self._job.roster.move(key, Phase.FETCHING)
        self._job.outbox.tell(key, m.Fetch(donor, peers[donor].address))

    def _has_mates_to_come(self, key: str, now: float) -> bool:
        """Tell whether others of its pod will hold the state in a moment, too."""
        roster, settings = self._job.roster, self._job.settings
        peer = roster.peers[key]
        slot, waited_seconds = peer.member.slot, now - peer.loaded_seconds
        if waited_seconds < settings.hello_seconds and not roster.is_complete(slot):
            return True
        fetching = any(roster.peers[mate].phase is Phase.FETCHING for mate in roster.of_slot(slot))
        return fetching and waited_seconds < settings.together_seconds

    def _admit(self, key: str, world: World) -> None:
        if key not in world.view:
            place = self._job.roster.place_of(key)
            world.view = world.view.with_joiner(key, place, world.rounds.settings)
        self._job.roster.move(key, Phase.ACTIVE)
        first_round = world.rounds.next_round
        position, weighted = world.view.members.index(key), key not in world.view.unweighted
        peer = self._job.roster.peers[key]
        if world.rounds.hearsay.holds(peer.donor):
            self._job.publish()
        self._job.outbox.tell(key, m.Start(first_round, position, weighted, peer.generation))
        self._job.outbox.note(Note("join", key, round=first_round))


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
