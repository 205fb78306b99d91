"""A stub at the other end of the operator's requests, for answers that a healthy API server
cannot be made to give.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from kubernetes.aio.client import Configuration

from dssync_operator.cluster import Cluster, Credentials, connect
from dssync_operator.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler, metrics: Metrics | None = None) -> AsyncIterator[Cluster]:
    """Let ``handler`` answer everything that the cluster within asks for."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    credentials = Credentials(f"http://127.0.0.1:{port}", None, None, Configuration())
    try:
        async with connect(credentials) as session:
            yield Cluster(session, credentials, metrics or Metrics())
    finally:
        await runner.cleanup()
