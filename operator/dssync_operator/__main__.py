"""The operator's process: credentials, metrics and probes, the Lease, then the operation.

A standby is imported, connected and answers its probes; only acting waits for the Lease. Losing
the Lease ends the process, because nothing in it may be trusted to stop by itself in time.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from dssync_operator import errors
from dssync_operator.cluster import Cluster, Credentials, connect, find_credentials
from dssync_operator.leader import Leader
from dssync_operator.logs import configure
from dssync_operator.metrics import Metrics
from dssync_operator.operate import Operation
from dssync_operator.probes import Probes
from dssync_operator.settings import Settings, read_settings
from dssync_operator.visitors import Visitors

_log = logging.getLogger("dssync_operator")


def main() -> int:
    """Run until told to stop; return the exit code."""
    try:
        settings = read_settings()
        configure(settings.log_level, settings.log_format)
        asyncio.run(_run(settings))
    except errors.OperatorError as error:
        print(f"dssync-operator: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    metrics = Metrics()
    # What was imported stays; each collection would otherwise walk over all of it.
    gc.freeze()
    credentials = await find_credentials(os.environ.get("KUBECONFIG"))
    # The Lease is renewed over connections of its own, behind no queue of other requests.
    async with (
        connect(credentials) as own,
        connect(credentials, settings.connections) as shared,
    ):
        unguarded = Cluster(own, credentials, metrics)
        leader = Leader(unguarded, settings)
        cluster = Cluster(shared, credentials, metrics, leader.guard)
        asking = Cluster(shared, credentials, metrics)  # a standby does it too
        visitors = Visitors(asking, time.monotonic) if settings.metrics_authentication else None
        async with Probes(settings, metrics, leader, visitors) as probes:
            _on_signals(stop)
            operate = _act(leader, cluster, credentials, probes, lambda: _on_signals(stop))
            await _until(stop, asyncio.create_task(operate), leader)


async def _until(stop: asyncio.Event, acting: asyncio.Task[None], leader: Leader) -> None:
    """Let it act until it is told to stop or fails."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({acting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not acting.done():
        # Let go first: a standby can act while this process is still tidying up.
        await leader.release()
        acting.cancel()
    (end,) = await asyncio.gather(acting, return_exceptions=True)
    if not stop.is_set() and end is not None:
        raise _first(end)


def _first(error: BaseException) -> BaseException:
    """The error at the bottom of a group; the others followed from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _act(
    leader: Leader,
    cluster: Cluster,
    credentials: Credentials,
    probes: Probes,
    on_signals: Callable[[], None],
) -> None:
    """Wait for the Lease, then operate until it is lost."""
    await leader.acquire()
    operation = Operation(cluster, credentials, probes.settings, probes.metrics)
    probes.lead(operation)
    _log.info("this replica leads")
    async with asyncio.TaskGroup() as group:
        group.create_task(operation.run(on_signals))
        group.create_task(leader.keep())


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


if __name__ == "__main__":
    sys.exit(main())
