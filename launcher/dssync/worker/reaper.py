"""Destroys process groups in a thread of its own, where nobody waits for it.

Destroying a gloo group takes 10 ms a rank, blocks until its last operation has ended, and ends
the process if it happens in a callback of that very group. So a group that is given up is
*adopted* at once, and its *remains* are buried here when its last operation has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Reaper:
    """One thread and its queue. ``adopt`` and ``bury`` never block; callbacks may call them."""

    def __init__(self) -> None:
        self._remains: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._changed = threading.Condition()
        self._pending = 0
        threading.Thread(target=self._run, name="dssync-reaper", daemon=True).start()

    @property
    def pending(self) -> int:
        """Number of groups that are adopted and not yet destroyed."""
        return self._pending

    def adopt(self) -> None:
        """Counts a group that will be buried when its last operation has ended."""
        with self._changed:
            self._pending += 1

    def bury(self, destroy: Callable[[], None]) -> None:
        """Runs ``destroy`` in the reaper's thread; it must drop the last reference itself."""
        self._remains.put(destroy)

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Waits until everything adopted is destroyed; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._pending == 0, timeout_seconds)

    def _run(self) -> None:
        while True:
            self._remains.get()()
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()
