"""The operator as far as launchers notice it: replacements, and proof of pods' ends."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from dssync import contract

if TYPE_CHECKING:
    from simulation.pod import Pod
    from simulation.run import Simulation


class Operator:
    """Replaces pods, and says which ones have ended."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._random = world.random
        proof = self._random.choice(("local", "operator", "operator", "none"))
        self.is_local = proof == "local"
        self._writes = proof == "operator"
        self._replaced: set[str] = set()

    def ended(self, pod: Pod) -> None:
        """A pod has come to its end: it is replaced, at least if it was the last."""
        if not self._world.completed:
            self.replace(pod)

    def replace(self, pod: Pod) -> None:
        """Start another pod in the slot once this one has ended, always if none is left."""
        others = [p for p in self._world.live_pods if p is not pod and not p.draining]
        if pod.uid in self._replaced:
            return
        is_wanted = not others or self._random.random() < 0.6
        self._replaced.add(pod.uid)
        self._world.faults.later(
            self._random.uniform(0.01, 3.0), lambda: self._look_after(pod, is_wanted)
        )

    def _look_after(self, pod: Pod, is_wanted: bool) -> None:
        if pod.alive:
            self._world.faults.later(0.1, lambda: self._look_after(pod, is_wanted))
            return
        if self._writes and self._world.cell.sky.answers:
            self._write_gone(pod.uid)
        if not self._world.completed and (is_wanted or not self._world.live_pods):
            self._world.add_pod(pod.spec.workers, pod.spec.slot)

    def _write_gone(self, uid: str) -> None:
        """Say in the record that a pod has ended, before it is replaced."""
        cell = self._world.cell
        gone = json.dumps(sorted({*cell.record.gone, uid}))
        values = {**cell.record.values, contract.RECORD_GONE: gone}
        cell.swap(cell.record, replace(cell.record, values=values))
