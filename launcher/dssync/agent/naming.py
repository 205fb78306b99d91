"""The address that this machine has towards a host whose name may not resolve yet.

A pod's name appears some time after the pod, and a machine may start before its network: a name
that is unknown now is no reason to end.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from dssync.errors import UsageError

RETRY_SECONDS = 0.2
_SILENT = "the resolver is silent"


async def address_towards(
    host: str, port: int, waiting: Callable[[str], None], patience_seconds: float
) -> str:
    """Return the address of this machine from which packets to ``host`` would leave.

    Args:
        host: A name or an address.
        port: Any port of it.
        waiting: Called with the reason when there is none yet, and when the reason changes.
        patience_seconds: How long to try.

    Raises:
        UsageError: The name stayed unknown, or there was no way to it.
    """
    reason = _SILENT
    try:
        async with asyncio.timeout(patience_seconds):
            while True:
                try:
                    return await _look(host, port)
                except OSError as error:
                    now = error.strerror or str(error)
                    if now != reason:
                        waiting(now)
                    reason = now
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        raise UsageError(
            f"host {host!r} of the rendezvous cannot be reached after {patience_seconds:g} s: "
            f"{reason}; check its name, or say this machine's address with --local-addr"
        ) from None


async def _look(host: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    found: list[Any] = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, target = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)  # a datagram socket: nothing is sent, nobody is waited for
        return str(probe.getsockname()[0])
