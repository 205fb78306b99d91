"""The launcher's end of a worker's link: set-up out, control both ways, metrics in.

The link is a socket pair that the worker inherited, so it needs no token: nobody else can hold
its other end. The first byte of a frame says what it is.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

from dssync.control.measurements import DELTA, Delta
from dssync.control.transport import FrameProtocol

SETUP, CONTROL, METRICS = b"S", b"C", b"M"


@dataclass(frozen=True)
class LinkHandlers:
    """What a link reports."""

    on_control: Callable[[str], None]
    """A message for the coordinator, as text."""
    on_metrics: Callable[[Delta], None]
    """A delta for the launcher's registry."""
    on_broken: Callable[[str], None]
    """The worker broke the protocol, in these words; the link is closed."""


class WorkerLink:
    """One worker's link, on the event loop."""

    def __init__(self, connection: FrameProtocol) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, end: socket.socket, handlers: LinkHandlers) -> "WorkerLink":
        """Take over the launcher's end of the socket pair."""

        def frame(_: FrameProtocol, payload: bytes) -> None:
            kind, body = payload[:1], payload[1:]
            if kind == CONTROL:
                handlers.on_control(body.decode(errors="replace"))
            elif kind == METRICS:
                handlers.on_metrics(DELTA.decode(body))

        def lost(connection: FrameProtocol) -> None:
            if connection.broken:
                handlers.on_broken(connection.broken)

        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(
            lambda: FrameProtocol(frame, lost), sock=end
        )
        return cls(connection)

    def set_up(self, values: dict[str, object]) -> None:
        """Tell the worker who it is."""
        self._connection.send(SETUP + json.dumps(values).encode())

    def control(self, body: str) -> None:
        """Pass a message of the coordinator on."""
        self._connection.send(CONTROL + body.encode())

    def close(self) -> None:
        """End the link."""
        self._connection.close()
