"""How a launcher that leaves lets another one coordinate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dssync.control import ballots as b
from dssync.control.events import Resigning

if TYPE_CHECKING:
    from simulation.pod import Pod

POLL_SECONDS = 0.05
HAND_OVER_SECONDS = 2.0


def hand_over(pod: Pod, then: Callable[[], None]) -> None:
    """Let another launcher coordinate, if this one does; after a while, go on instead."""
    hub = pod.hub
    if hub is None or not hub.successors or hub.completed:
        then()
        return
    hub.handle(Resigning())
    give_up, resigned = pod.clock() + HAND_OVER_SECONDS, False

    def look() -> None:
        nonlocal resigned
        if resigned and pod.hub is not hub and pod.is_linked:
            then()
            return
        idle = not resigned and hub.coordinator.idle
        if pod.clock() > give_up or (idle and not hub.successors):
            pod.tell_election(b.Stay())
            hub.handle(Resigning(False))
            then()
            return
        if idle:
            resigned = True
            pod.tell_election(b.Resign(hub.successors[0]))
        pod.later(POLL_SECONDS, look)

    look()
