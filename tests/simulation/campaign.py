"""The election's shell: its clock, the arbiter, questions to other launchers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dssync.control import ballots as b
from dssync.control.ballots import ElectionSettings, Phase
from dssync.control.election import Election
from dssync.control.peers import Answer, Leader
from dssync.control.record import Record
from dssync.control.takeover import Launcher
from dssync.errors import ArbiterError

if TYPE_CHECKING:
    from simulation.pod import Pod

TICK_SECONDS = 0.05


class Campaign:
    """Runs the election of one launcher."""

    def __init__(self, pod: Pod, me: Launcher, settings: ElectionSettings) -> None:
        self._pod = pod
        self.election: Election = pod.world.protocol.election(me, settings, pod.clock())
        self._events: deque[b.Event] = deque()
        self._handling = False
        self._ticking = False
        self.handle(b.Ticked())

    def handle(self, event: b.Event) -> None:
        """Hand an event to the election and do what it wants; in turn, also from inside."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        while self._events and self._pod.alive:
            event = self._events.popleft()
            self._pod.world.observer.election(self.election, event)
            for effect in self.election.handle(event, self._pod.clock()):
                if self._pod.survives_effect():
                    self._do(effect)
        self._handling = False
        if not self._ticking and self.election.phase is not Phase.FOLLOWING:
            self._ticking = True
            self._pod.later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        """Go on ticking; to a follower, time means nothing."""
        self._ticking = False
        self.handle(b.Ticked())

    def _do(self, effect: b.Effect) -> None:
        pod, cell = self._pod, self._pod.world.cell
        match effect:
            case b.Look():
                cell.read(pod, pod.uid, self._looked)
            case b.Swap(expected, new):
                cell.try_swap(pod, pod.uid, (expected, new), self._swapped)
            case b.AskAll(launchers):
                self._examine(launchers)
                for each in launchers:
                    self._ask(each)
            case b.Lead(_, _, others):
                pod.perform(effect)
                for each in others:
                    self._announce(each)
            case _:
                pod.perform(effect)

    def _looked(self, found: Record | ArbiterError | None) -> None:
        is_error = found is None or isinstance(found, ArbiterError)
        self.handle(b.ArbiterFailed() if is_error else b.Looked(found))

    def _swapped(self, found: Record | ArbiterError | None) -> None:
        is_error = isinstance(found, ArbiterError)
        self.handle(b.ArbiterFailed() if is_error else b.Swapped(found))

    # --- other launchers ----------------------------------------------------------------------

    def _examine(self, launchers: tuple[Launcher, ...]) -> None:
        ended = frozenset(each.uid for each in launchers if self._pod.world.has_ended(each.uid))
        if ended:
            self.handle(b.ExitsSeen(ended))

    def _ask(self, launcher: Launcher) -> None:
        network, asker = self._pod.world.network, self._pod

        def asked() -> None:
            other = self._pod.world.pod(launcher.uid)
            if other is not None and other.campaign is not None:
                answer = other.campaign.election.answer
                network.post(other, asker.uid, lambda: self._answered(answer))

        network.post(asker, launcher.address, asked)

    def _answered(self, answer: Answer) -> None:
        self.handle(b.Answered(answer))

    def _announce(self, launcher: Launcher) -> None:
        election = self.election
        assert election.leader is not None
        news = b.Heard(Leader(election.leader.term, self._pod.uid, self._pod.uid))

        def heard() -> None:
            other = self._pod.world.pod(launcher.uid)
            if other is not None and other.campaign is not None:
                other.campaign.handle(news)

        self._pod.world.network.post(self._pod, launcher.address, heard)
