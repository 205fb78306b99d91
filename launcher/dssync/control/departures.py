"""How members leave: lost, benched, drained or of their own will."""

import math
from collections.abc import Iterable

from dssync.control import messages as m
from dssync.control.events import Note
from dssync.control.job import Job, World
from dssync.control.roster import Phase, Pod
from dssync.control.takeover import Launcher
from dssync.control.view import slot_of


class Departures:
    """Takes members and pods out of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._waiting: dict[int, Pod] = {}
        """Pods that drain once a round may be frozen, by slot."""

    def gone(self, key: str, cause: str, now: float) -> None:
        """Forget a member: its data become holes and its groups shrink."""
        job = self._job
        peer = job.roster.remove(key)
        if peer is None:
            return
        job.ledger.release(key)
        if job.world is not None:
            job.world.remove(key)
            job.world.rounds.gone(key, cause, now)
        self._announce_drained(peer.member.slot)
        if job.completed:
            return
        if cause != "leave":
            job.outbox.note(Note("evict", key, cause))
        elif peer.phase is not Phase.DRAINING:  # else it was told when the member was asked to go
            job.outbox.note(Note("leave", key, cause))

    def bench(self, key: str, cause: str, now: float) -> None:
        """Take out a member that may still live, and tell it that it may come back."""
        pod = self._job.roster.pods.get(slot_of(key))
        if pod is not None:
            self._put_out(key, pod)
        self.gone(key, cause, now)
        self.tell_benched(key, cause)

    def tell_benched(self, key: str, reason: str) -> None:
        """Tell a member, once, that it is out of the view."""
        if key not in self._job.roster.benched:
            self._job.roster.benched.add(key)
            self._job.outbox.tell(key, m.Bench(reason))

    def pod_gone(self, slot: int, cause: str, now: float) -> None:
        """Forget a launcher and its members."""
        pod = self._job.roster.pods[slot]
        if cause == "eof":
            self.miss(pod, now)
        self._job.roster.remove_pod(slot)
        for key in self._job.roster.of_slot(slot):
            self._put_out(key, pod)
            self.gone(key, cause, now)

    def miss(self, pod: Pod, now: float) -> None:
        """A launcher went without a word, or is silent: it may follow somebody else, or lead."""
        if not pod.leaves:
            self._job.quorum.lost(pod.launcher, now)

    def miss_absent(self, launchers: Iterable[Launcher], now: float) -> None:
        """Miss, of those that were there before this term, whoever is not here as it begins.

        Nobody knows since when, so that an end that is confirmed says nothing of the time before.
        """
        here = {pod.uid for pod in self._job.roster.pods.values()}
        for each in launchers:
            if each.uid not in here:
                self._job.quorum.lost(each, -math.inf)
        for pod in self._job.roster.pods.values():
            self.confirm_replaced(pod, now)

    def confirm_replaced(self, pod: Pod, now: float) -> None:
        """Whoever had the slot of a pod has ended, or it would not be another's."""
        missing = self._job.quorum.missing
        former = [each.uid for each in missing if each.slot == pod.slot and each.uid != pod.uid]
        if former:
            self.confirm_gone(former, now)

    def _put_out(self, key: str, pod: Pod) -> None:
        """Note that what a member does from now on does not count; after the end nothing does."""
        if not self._job.completed:
            self._job.put_out[key] = pod.uid

    def confirm_gone(self, uids: Iterable[str], now: float) -> None:
        """Launchers have ended for certain, and their members with them."""
        ended = frozenset(uids)
        self._job.quorum.ended(ended, now)
        put_out = self._job.put_out
        self._job.put_out = {key: uid for key, uid in put_out.items() if uid not in ended}

    def drain_pod(self, pod: Pod, now: float) -> None:
        """Let the members of a pod finish the rounds that they are in, then go.

        The last of a view go with its exact mean, and a checkpoint of that. To freeze this flush
        is to decide: they wait for that if need be.
        """
        pod.draining = True
        world = self._world_of_last(pod)
        if world is not None:
            if not self._job.may_decide(now):
                self._waiting[pod.slot] = pod
                return
            self._suspend(world)
        for key in self._job.roster.of_slot(pod.slot):
            if self._job.roster.peers[key].phase is not Phase.DRAINING:
                self._drain(key)
        self._announce_drained(pod.slot)

    def drain_waiting(self, now: float) -> None:
        """Let pods go that had to wait, if they are here still."""
        if not self._waiting:
            return  # Most of the time.
        waiting, self._waiting = self._waiting, {}
        for slot, pod in waiting.items():
            if self._job.roster.pods.get(slot) is pod:
                self.drain_pod(pod, now)

    def _world_of_last(self, pod: Pod) -> World | None:
        """Return the world if nobody of its view is left without a pod."""
        world, of_pod = self._job.world, self._job.roster.of_slot(pod.slot)
        if world is None or not world.view.members or world.final_frozen or self._job.completed:
            return None
        return world if set(of_pod).issuperset(world.view.members) else None

    def _suspend(self, world: World) -> None:
        progress = self._job.ledger.progress
        layouts = self._job.layouts(world, "suspend")
        world.rounds.freeze(world.view, "suspend", True, progress, layouts)

    def _drain(self, key: str) -> None:
        job = self._job
        peer, last_round = job.roster.peers[key], -1
        if peer.phase is Phase.ACTIVE and job.world is not None:
            job.world.remove(key)
            last_round = max(job.world.rounds.holding(key), default=-1)
        job.roster.move(key, Phase.DRAINING)
        job.outbox.tell(key, m.LastRound(last_round))
        job.outbox.note(Note("leave", key, "drain", round=last_round))

    def _announce_drained(self, slot: int) -> None:
        pod = self._job.roster.pods.get(slot)
        if pod is not None and pod.draining and not self._job.roster.of_slot(slot):
            self._job.outbox.send(slot, m.Drained())
