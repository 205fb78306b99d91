"""A member that plays its part of a recorded run again (``control.replay``).

It stands in the place of `session.MemberSession` and does what the log says in the order in which
the script asks for it: batches, rounds, copies for joiners, another member's state. Values are
staged, summed over gloo groups of the same members in the same rank order, and applied by the same
code; so their bits come out the same. There is no coordinator: the launcher passes addresses
between groups, tells a joiner where its donor is, and lets a process end when its mates have what
they need of it.

A sum of the staged values is compared with the log's in every round, so that a script, data or a
library that is not the recorded one is found at the first round in which it matters.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import torch
from msgspec.structs import replace
from safetensors.torch import save_file

from dssync.control import messages as m
from dssync.control.replay import Donates, Round
from dssync.control.viewlog import CHECKPOINT, Entered, Left, Point, Skipped
from dssync.errors import ReplayError
from dssync.worker import checkpoint
from dssync.worker.acts import Acts, is_idle
from dssync.worker.buckets import Buckets, averaged
from dssync.worker.communicator import Communicator
from dssync.worker.gloo import GlooBackend, GlooGroup, GlooSettings
from dssync.worker.journal import Journal
from dssync.worker.link import Link
from dssync.worker.measure import Measure
from dssync.worker.moments import Moments
from dssync.worker.options import SyncOptions
from dssync.worker.outcome import Outcome
from dssync.worker.payload import Payload
from dssync.worker.places import Places
from dssync.worker.reaper import Reaper
from dssync.worker.saved import take_over
from dssync.worker.snapshots import Snapshots
from dssync.worker.store import Mailbox
from dssync.worker.transfer import FetchedState

MATE_SECONDS: Final = 3600.0
"""How long a mate is waited for: it may have much to train before it gets here."""


class ReplaySession:
    """The member behind a ``GroupSync`` in a replay; see `session.MemberSession`.

    Raises:
        ReplayError: the script asks for other things than the recorded one did.
    """

    def __init__(self, link: Link, options: SyncOptions, payload: Payload) -> None:
        self.link = link
        self.options = options
        self.world_size = 1
        self.last: Outcome | None = None
        self.listeners: list[Callable[[Outcome], None]] = []
        self.consumed: list[tuple[int, int]] = []
        self.steps = 0
        self.joined = False
        self.left = False
        self._payload = payload
        self._own = link.setup.member
        self._acts = Acts(Path(link.setup.replay))
        self._applied_round = -1
        self._first = self._ended = self._gone = False
        self._stopped = False
        self._reaper = Reaper()
        self._mailbox = Mailbox(link.send_blob)
        settings = GlooSettings(link.setup.host, link.setup.interface, MATE_SECONDS, MATE_SECONDS)
        self._backend = GlooBackend(self._own, self._reaper, settings)
        self._groups: dict[str, GlooGroup] = {}
        measure = Measure(link.push_metrics, 0)
        self._snapshots = Snapshots(link, payload, measure, Journal(self._own, ""), self._now)
        link.listen(self)

    # --- what the link's thread calls --------------------------------------------------------

    def on_assign(self, assign: m.Assign) -> None:
        """Nobody assigns anything."""

    def on_abandon(self, assign: m.Assign) -> None:
        """Nobody gives anything up."""

    def on_adopt(self) -> None:
        """There are no terms."""

    def on_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Take a mate's rendezvous data."""
        self._mailbox.deliver(communicator, key, value)

    # --- what GroupSync calls ----------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether this member trains no further."""
        return self.left or self._is_leaving

    @property
    def is_first(self) -> bool:
        """Whether this member spoke for the job; whoever left before its end did not."""
        return self._first and (self._ended or not self._is_leaving)

    @property
    def has_leases(self) -> bool:
        """Whether something is drawn before the next round."""
        # Who had no more data gave copies away while it waited for its next round.
        while self._donation is not None:
            self.do_chores()
        act = self._acts.due
        return not (self.over or is_idle(act))

    def join(self) -> None:
        """Come in, or come back."""
        if not self.joined:
            self._payload.check()
            chosen = averaged(self._payload.model)
            self._lines = chosen.lines
            self._places = Places(self._payload.model, chosen)
            self._buckets = Buckets(chosen.tensors)
            self._moments = Moments(self._payload.optimizer)
            self._snapshots.serve()
            self.joined = True
            self._enter()
        elif self.left and not self._is_at_its_end:
            self.left = False
            self._enter()

    def leave(self, reason: str) -> None:
        """Leave where the log says so."""
        if not self.joined or self.left or self._stopped:
            return
        self.left = True
        act = self._acts.due
        if isinstance(act, Left):
            self._gone = act.over
            if act.over and self._buckets.digest != act.digest:
                raise ReplayError(
                    f"{self._own} ends with other values than the log's: its script, its data or "
                    "its libraries are not those of the recorded run"
                )
            self._acts.done()
        elif self._acts.next is not None:
            self._depart(f"leaves the job ({reason})")
        if self._is_at_its_end:
            self._end()

    def do_chores(self) -> None:
        """Serve joiners, if this is the moment."""
        if (act := self._donation) is None:
            return
        served = self._snapshots.served + act.joiners
        # It waits before this round: the launcher sends it the joiners.
        self.link.send(m.Arrive(act.point.round + 1, 0, idle=True))
        while self._snapshots.served < served:
            with self.link.condition:
                self.link.condition.wait_for(
                    lambda: self._snapshots.asked or self._snapshots.served >= served
                )
            if self._snapshots.asked:
                self._snapshots.take()
        self._acts.done()

    def draw(self, track: int, ahead: int) -> int | None:
        """Return the batch that was drawn here."""
        del ahead
        while (drawn := self._acts.draw()) is None:
            self._between("draws a batch")
        if drawn.track != track:
            self._depart(f"draws from loader {track}, not {drawn.track}")
        return drawn.batch if drawn.batch >= 0 else None

    def sync(self, idle: bool) -> None:
        """Take part in the next round of the log."""
        while not self.over:
            match self._acts.due:
                case Entered():
                    self._enter()
                    return
                case (Skipped() | Round()) as act if act.idle != idle:
                    self._depart(f"trains {'not ' if idle else ''}before its next round")
                case Skipped(_, number):
                    self._acts.done()
                    self._tell(Outcome.skipped(number, 0.0))
                    return
                case Round() as act:
                    if self._round(act):
                        return
                case _:
                    self._between("begins a round")

    def close(self) -> None:
        """Give everything back."""
        self.leave("leave")
        self._snapshots.close()
        for group in self._groups.values():
            group.close()
        self._reaper.wait_idle(1.0)

    # --- acts --------------------------------------------------------------------------------

    def _now(self) -> Point:
        return Point(self.link.state.generation, self.steps, self._applied_round)

    @property
    def _is_leaving(self) -> bool:
        """Whether it left for good, or is about to."""
        return self._gone or (isinstance(act := self._acts.due, Left) and act.over)

    @property
    def _donation(self) -> Donates | None:
        """The copies that it gives away at this moment, if it does."""
        act = self._acts.due
        return act if isinstance(act, Donates) and act.point == self._now() else None

    @property
    def _is_at_its_end(self) -> bool:
        return self._acts.next is None

    def _between(self, what: str) -> None:
        """Do what comes before a batch or a round; end where there is nothing more."""
        act = self._acts.due
        if self._is_at_its_end:
            self._stop()
        elif isinstance(act, Entered):
            self._enter()
        elif self._donation is not None:
            self.do_chores()
        else:
            self._depart(what)

    def _enter(self) -> None:
        """Come in with the values of the log's donor, and take part idly as long as it did."""
        act = self._acts.due
        if not isinstance(act, Entered):
            self._depart("enters")
        if act.generation != self.link.state.generation:
            with self.link.condition:
                self.link.state.restart()
                self.link.state.generation = act.generation
            self.consumed.clear()
            self._payload.optimizer.zero_grad()
        hello = m.Enter(self._lines, self.options.message, self._snapshots.address)
        self.link.send(replace(hello, generation=self.link.state.generation))
        if act.source.startswith(CHECKPOINT):
            folder = Path(act.source.removeprefix(CHECKPOINT))
            take_over(checkpoint.read(folder), self._payload)
        elif act.source:
            self._fetch()
        self._acts.done()
        self.do_chores()
        while self._acts.idles:
            self.sync(idle=True)

    def _fetch(self) -> None:
        state, condition = self.link.state, self.link.condition
        with condition:
            condition.wait_for(lambda: state.fetch is not None)
            fetch, state.fetch = state.fetch, None
        if fetch is None:
            raise ReplayError(f"{self._own} was told of no donor")
        token = bytes.fromhex(self.link.setup.token)
        fetched = FetchedState(fetch.address, token, self.link.wake)
        with condition:
            condition.wait_for(lambda: fetched.done)
        if fetched.error is not None:
            raise ReplayError(f"{self._own} cannot get the state of {fetch.donor}: {fetched.error}")
        self._payload.load(fetched.state)
        self.link.send(m.Loaded(fetch.donor))

    def _round(self, act: Round) -> bool:
        """Give values to an attempt; apply it if the member did; tell whether the round is over."""
        started, assign = time.monotonic(), act.assign
        self._places.follow(self._buckets)
        buckets = self._buckets
        if assign.moments:
            buckets = buckets.joined(self._moments.buckets())
        if assign.stages:
            self._sum(act, buckets)
            self.link.send(m.Confirm(assign.round, assign.attempt, ()))
        self._acts.done()
        if not act.applied:
            return False
        if assign.stages:
            buckets.apply()
        state = self.link.state
        state.progress = max(state.progress, assign.progress)
        self.consumed.clear()
        self._applied_round = assign.round
        self.world_size = assign.world_size
        self._first, self._ended = assign.first == self._own, assign.kind == "final"
        if self._ended:
            self.do_chores()  # It waits here for the end. Else the script goes on first.
        result = "committed" if assign.stages else "solo"
        self._tell(Outcome.of(assign, result, self._own, time.monotonic() - started))
        return True

    def _sum(self, act: Round, buckets: Buckets) -> None:
        stages = act.assign.stages
        buckets.stage(stages[0].weight, act.assign.round)
        if buckets.total().hex() != act.total:
            raise ReplayError(
                f"{self._own} brings other values into round {act.assign.round} than the log's: "
                "its script, its data or its libraries are not those of the recorded run"
            )
        for number, stage in enumerate(stages):
            if number:
                buckets.scale(stage.weight)
            if len(stage.members) > 1:
                group = self._group(Communicator(stage.communicator, stage.members))
                for operation in [group.allreduce(each) for each in buckets.buckets()]:
                    operation.wait(MATE_SECONDS)
        for communicator in act.assign.retire:
            if communicator in self._groups:
                self._groups.pop(communicator).close()

    def _group(self, spec: Communicator) -> GlooGroup:
        if spec.id not in self._groups:
            self._groups[spec.id] = self._backend.build(spec, self._mailbox)
        return self._groups[spec.id]

    def _tell(self, outcome: Outcome) -> None:
        self.last = outcome
        for listener in self.listeners:
            listener(outcome)

    # --- the end -----------------------------------------------------------------------------

    def _end(self) -> None:
        """Write the values if they are wanted, and wait until no mate needs this process."""
        if self._acts.stays and self.link.setup.replay_out:
            slot, rank, _ = self._own.split(".")
            values = {k: v for k, v in self._payload.model.state_dict().items()}
            tensors = {k: v.contiguous().clone() for k, v in values.items() if _is_tensor(v)}
            save_file(tensors, Path(self.link.setup.replay_out) / f"{slot}.{rank}.safetensors")
        self.link.send(m.Leave("played"))
        with self.link.condition:
            self.link.condition.wait_for(lambda: self.link.state.completed is not None)

    def _stop(self) -> NoReturn:
        """End the process: it was killed here, or the replay ends here."""
        self._stopped = self.left = True
        self._end()
        sys.exit(0)

    def _depart(self, what: str) -> NoReturn:
        self._stopped = True
        raise ReplayError(
            f"{self._own} {what} where the log has {type(self._acts.next).__name__} "
            f"after {self._applied_round + 1} rounds: the script is not the recorded one"
        )


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
