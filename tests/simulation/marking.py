"""Says of faults whom they hit, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.pod import Pod
    from simulation.run import Simulation


class Marking:
    """Marks launchers, and members with them, at the observer of a run."""

    def __init__(self, world: Simulation) -> None:
        self._world = world

    def touch(self, *pods: Pod) -> None:
        """Note that pods are hit, with all their workers, by something that is over at once."""
        for marks in (self._world.observer.hit, self._world.observer.touched):
            marks.hit(pod.uid for pod in pods)

    def hold(self, *pods: Pod) -> Callable[[], None]:
        """Note that pods are hit, with all their workers, until what is returned is called."""
        observer, uids = self._world.observer, [pod.uid for pod in pods]
        ends = observer.hit.hold(uids), observer.touched.hold(uids)

        def end() -> None:
            for each in ends:
                each()

        return end

    def lose(self, *pods: Pod) -> None:
        """Note that pods end, at once or soon, with all their workers."""
        for marks in (self._world.observer.hit, self._world.observer.touched):
            marks.lose(pod.uid for pod in pods)

    def touch_all(self) -> None:
        """Note that everybody is hit, and the last words of those who have just left."""
        self.touch(*self._world.live_pods)
        self._world.observer.touched.hit(self._world.observer.drained)

    def hold_all(self) -> Callable[[], None]:
        """Note the same of something that lasts until what is returned is called.

        It hits those, too, who come meanwhile.
        """
        observer = self._world.observer
        known = self.hold(*self._world.live_pods), observer.touched.hold(observer.drained)
        ends = *known, observer.hit.hold_general(), observer.touched.hold_general()

        def end() -> None:
            for each in ends:
                each()
            self.touch_all()

        return end

    def hold_link(self, pod: Pod) -> Callable[[], None]:
        """Note that the way to a pod is hit: everybody's way, if it coordinates, before or after.

        It lasts until what is returned is called.
        """
        over = self.hold_all() if pod is self._world.leader else self.hold(pod)

        def end() -> None:
            over()
            if pod is self._world.leader:
                self.touch_all()

        return end
