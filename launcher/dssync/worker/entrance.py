"""How a member comes in: hello, a donor's state, admission. Also how it comes in again."""

import time
from collections.abc import Callable

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.viewlog import CHECKPOINT, Point
from dssync.errors import ModelError
from dssync.worker.checkpoint import Loaded
from dssync.worker.link import Link
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saver import Saver
from dssync.worker.transfer import FetchedState
from dssync.worker.word import tell

Wait = Callable[[Callable[[], bool]], None]

LONGEST_PAUSE_SECONDS = 5.0
"""Before one more donor is tried, when none can be reached."""


class Entrance:
    """The way into the view.

    Args:
        link: the member's state and messages.
        payload: takes a donor's state over.
        measure: of this worker.
        wait: waits until a predicate holds, doing the training thread's chores meanwhile.
        saver: reads checkpoints.
    """

    def __init__(
        self, link: Link, payload: Payload, measure: Measure, wait: Wait, saver: Saver
    ) -> None:
        self._link = link
        self._payload = payload
        self._measure = measure
        self._wait = wait
        self._saver = saver
        self.source = ""
        """Whose state was loaded last: a donor's key, ``checkpoint:PATH``, or nobody's."""
        self.taken: Point | None = None
        """When the donor took it."""
        self._failures = 0
        """Donors that could not be reached, one after the other."""

    def enter(self, hello: m.Enter) -> None:
        """Say hello and return when this member is admitted, or has no more to do.

        Raises:
            ModelError: the job refuses this model.
        """
        state, started = self._link.state, time.monotonic()
        self.source, self.taken = "", None
        self._say(hello)
        while not (state.started or self._link.ended):
            self._wait(self._is_told)
            if state.benched is not None and not state.started:
                # Whatever it was waiting for will not come: the coordinator has forgotten it.
                with self._link.condition:
                    state.restart()
                self._say(hello)
            if state.resume and not state.started:
                state.resume = False
                self._resume()
            if state.fetch is not None and not state.started:
                self._fetch(state.fetch)
        if state.refused is not None:
            raise ModelError(state.refused)
        if state.completed is not None and not self.source and hello.applied_round < 0:
            # Nobody was left to give the final state away.
            self._take_newest()
        self._observe("admit", started)

    def _say(self, hello: m.Enter) -> None:
        self._link.send(replace(hello, generation=self._link.state.generation))

    def _resume(self) -> None:
        found = self._take_newest()
        self._link.send(m.Resumed(None if found is None else found.ledger))

    def _take_newest(self) -> Loaded | None:
        """Take over the newest checkpoint, if there is one."""
        found = self._saver.resume()
        if found is not None:
            self.source = f"{CHECKPOINT}{found.folder}"
        return found

    def _is_told(self) -> bool:
        state = self._link.state
        asked = state.fetch is not None or state.resume
        return asked or state.started or state.benched is not None or self._link.ended

    def _fetch(self, fetch: m.Fetch) -> None:
        """Get a donor's state; the coordinator sends this member elsewhere if it is lost."""
        state, started = self._link.state, time.monotonic()
        token = bytes.fromhex(self._link.setup.token)
        pause_seconds = pause_after(self._failures)
        fetched = FetchedState(fetch.address, token, self._link.wake, pause_seconds)
        self._wait(lambda: fetched.done or state.fetch is not fetch or self._link.ended)
        if not fetched.done:
            fetched.give_up()
            return
        with self._link.condition:
            if state.fetch is fetch:
                state.fetch = None
        if fetched.error is not None:
            self._failures += 1
            tell(
                f"cannot get the training state of {fetch.donor} ({fetched.error}); goes on trying"
            )
            self._link.send(m.FetchFailed(fetch.donor, fetched.error))
            return
        self._failures = 0
        self._payload.load(fetched.state)
        self.source = fetch.donor
        self.taken = Point(*fetched.taken) if fetched.taken is not None else None
        self._measure.increment(
            "dssync_state_transfer_bytes_total", fetched.size_bytes, direction="received"
        )
        self._observe("state", started)
        self._link.send(m.Loaded(fetch.donor))

    def _observe(self, phase: str, started: float) -> None:
        seconds = time.monotonic() - started
        self._measure.observe("dssync_join_duration_seconds", seconds, phase=phase)


def pause_after(failures: int) -> float:
    """Return the seconds before one more donor is tried: another one at once, then less often."""
    doubled = 0.2 * 2.0 ** min(failures - 2, 9)
    return min(LONGEST_PAUSE_SECONDS, doubled) if failures > 1 else 0.0
