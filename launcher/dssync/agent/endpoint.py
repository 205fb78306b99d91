"""The launcher's HTTP endpoint: ``/metrics`` for Prometheus, ``/healthz`` for probes.

On the event loop rather than in prometheus-client's thread, so that ``/healthz`` answers exactly
as long as the launcher itself does.
"""

import asyncio
import contextlib
import http

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dssync.errors import UsageError

_REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 1 << 14


class MetricsEndpoint:
    """A listening endpoint."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @classmethod
    async def open(cls, registry: CollectorRegistry, host: str, port: int) -> "MetricsEndpoint":
        """Listen.

        Args:
            registry: What ``/metrics`` shows.
            host: Address to bind to.
            port: Port to bind to; 0 lets the system choose.

        Raises:
            UsageError: The address cannot be bound.
        """

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_answer(head.decode("latin-1"), registry))
                    await writer.drain()
            writer.close()

        try:
            server = await asyncio.start_server(serve, host, port, limit=_REQUEST_BYTES)
        except OSError as error:
            raise UsageError(
                f"metrics cannot be served on {host} port {port}: {error.strerror}; free the "
                "port, or choose another with --metrics-port"
            ) from None
        return cls(server)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await self._server.wait_closed()


def _answer(head: str, registry: CollectorRegistry) -> bytes:
    request, *lines = head.split("\r\n")
    method, _, rest = request.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return _response(http.HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"")
    if path == "/healthz":
        return _response(http.HTTPStatus.OK, "text/plain", b"ok\n")
    if path != "/metrics":
        return _response(http.HTTPStatus.NOT_FOUND, "text/plain", b"")
    headers = dict(line.lower().partition(":")[::2] for line in lines)
    encode, content_type = choose_encoder(headers.get("accept", ""))
    return _response(http.HTTPStatus.OK, content_type, encode(registry))


def _response(status: http.HTTPStatus, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
