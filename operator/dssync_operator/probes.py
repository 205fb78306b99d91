"""The operator's own endpoint: /metrics, /healthz and /readyz, on standbys as well.

Healthy means that the event loop turns and the watches move. Ready says that credentials and
connection work, of a standby as of the leader, so that a Deployment that rolls keeps the replicas
that can lead until others can.
"""

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from dssync_operator.certificate import Certificate
from dssync_operator.metrics import Metrics
from dssync_operator.settings import Settings
from dssync_operator.visitors import Visitors


class Checked(Protocol):
    """What can tell that something is wrong with it."""

    def unhealthy(self) -> str | None:
        """Say what is wrong; None when all is well."""
        ...


class Probes:
    """The HTTP server; use it as a context."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        candidate: Checked,
        visitors: Visitors | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            settings: Port and certificate.
            metrics: What ``/metrics`` shows.
            candidate: Knows whether this replica could lead.
            visitors: Who may see it; None lets everybody.

        Raises:
            SettingsError: There is no certificate where there should be one.
        """
        self.settings = settings
        self.metrics = metrics
        self._candidate = candidate
        self._visitors = visitors
        folder = settings.tls_folder
        self._certificate = Certificate(Path(folder)) if folder else None
        self._operation: Checked | None = None
        self._runner: web.AppRunner | None = None

    def lead(self, operation: Checked) -> None:
        """From now on health is that of the operation as well."""
        self._operation = operation
        self.metrics.leader.set(1)

    async def __aenter__(self) -> Self:
        """Start to listen."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        tls = self._certificate.context if self._certificate else None
        await web.TCPSite(self._runner, port=self.settings.port, ssl_context=tls).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop to listen."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._visitors is not None:
            status = await self._visitors.answer(request.headers.get("Authorization", ""))
            if status != 200:
                return web.Response(status=status)
        if self._operation is not None:
            self._operation.unhealthy()  # brings the ages of the watches up to date
        body = self.metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _healthz(self, _: web.Request) -> web.Response:
        if self._certificate is not None:
            self._certificate.refresh()  # kubelets ask every few seconds
        wrong = self._operation.unhealthy() if self._operation else None
        return web.Response(text=wrong or "ok", status=500 if wrong else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        wrong = self._candidate.unhealthy()
        role = "leader" if self._operation else "standby"
        return web.Response(text=wrong or role, status=503 if wrong else 200)
