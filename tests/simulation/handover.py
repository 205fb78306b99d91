"""How a launcher that leaves lets another one coordinate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dssync.control import ballots as b
from dssync.control.events import Resigning

if TYPE_CHECKING:
    from simulation.pod import Pod

HAND_OVER_PAUSE_SECONDS = 5.0
LINGER_SECONDS = 10.0
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


def stay_for_others(pod: Pod, end: Callable[[], None]) -> None:
    """End a pod without workers once nobody needs the coordinator in it, or for too long."""
    give_up = pod.clock() + LINGER_SECONDS

    def look() -> None:
        hub, over = pod.hub, pod.is_over
        if hub is None or not hub.others or (over and pod.clock() > give_up):
            end()
        elif over:
            pod.later(POLL_SECONDS, look)
        else:
            pod.later(HAND_OVER_PAUSE_SECONDS, try_again)

    def try_again() -> None:
        hand_over(pod, look)

    try_again()
