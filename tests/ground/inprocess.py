"""The operator's reconciler in the test's own process, with faults on its line to the server.

The API server is real; what is made up is only when an answer is refused, lost, or never asked
for because the process died. That happens where requests leave the process, so all the
operator's code runs as it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from dssync_operator.cluster import Cluster, connect, find_credentials
from dssync_operator.metrics import Metrics
from dssync_operator.reconcile import Reconciler
from dssync_operator.settings import Settings
from dssync_operator.wire import Event
from ground.control_plane import ControlPlane

Fault = Callable[[str, str], None]


class Death(BaseException):
    """The process died here; nothing of the operator may catch it."""


def nothing(verb: str, path: str) -> None:
    """Let every request through."""


class FaultyCluster(Cluster):
    """The real cluster; ``before`` and ``after`` may raise around each request."""

    before: Fault = staticmethod(nothing)
    after: Fault = staticmethod(nothing)

    async def _request(
        self,
        verb: str,
        path: str,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        self.before(verb, path)
        answer = await super()._request(verb, path, body, query, headers)
        self.after(verb, path)
        return answer


class DeafCluster(Cluster):
    """The real cluster, whose watches bring nothing any more once it is deaf."""

    deaf = False

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Event]:
        """Yield events until it is deaf."""
        async for event in super().watch(path, query):
            if not self.deaf:
                yield event


class Harness:
    """A reconciler that can be restarted, on a line that can fail."""

    def __init__(self, cluster: FaultyCluster, wall: Callable[[], float], **settings: Any) -> None:
        self.cluster = cluster
        self._wall = wall
        self._settings = Settings(identity="harness", **settings)
        self.restart()

    def restart(self) -> None:
        """Forget everything, as a new process does."""
        self.reconciler = Reconciler(self.cluster, self._settings, Metrics(), self._wall)

    def die_at(self, call: int, answered: bool) -> None:
        """Die at the so-manieth request from now, before or after the server has acted on it."""
        left = [call]

        def die(verb: str, path: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Death(f"{verb} {path}")

        self.heal()
        setattr(self.cluster, "after" if answered else "before", die)

    def fail_at(self, call: int, error: Exception) -> None:
        """Let one request fail."""
        left = [call]

        def fail(verb: str, path: str) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise error

        self.heal()
        self.cluster.before = fail

    def heal(self) -> None:
        """Let every request through again."""
        self.cluster.before = self.cluster.after = nothing


async def lines_end() -> None:
    """Wait until all lines that were opened in this event loop have ended.

    A TLS line that is closed waits for the server's last word. What the end of the loop leaves of
    it would fail whichever test runs when it is collected.
    """
    loop = asyncio.get_running_loop()
    own = 1  # the loop's waker
    async with asyncio.timeout(10):
        while len(loop._selector.get_map()) > own:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def harness(
    plane: ControlPlane, wall: Callable[[], float], **settings: Any
) -> AsyncIterator[Harness]:
    """Connect a reconciler to a control plane."""
    credentials = await find_credentials(str(plane.kubeconfig))
    async with connect(credentials) as session:
        yield Harness(FaultyCluster(session, credentials, Metrics()), wall, **settings)
