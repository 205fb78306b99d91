"""Finds and shuts down the sockets of one gloo group, the only way to release its operations.

gloo has no abort: ``abort``, ``shutdown`` and ``set_timeout`` leave a stuck operation stuck until
its timeout. Shutting down the connected sockets under it makes the transport fail the operation
within milliseconds. The group does not tell its descriptors, but each member's address blob
carries the port of a listener that belongs to this group alone (one gloo device per group): every
connection of the group has such a listener at one of its ends. A device shared by several groups
would make its accepted connections indistinguishable.

Operations that wait for a mate are always released. One whose message is just then half-way
through a socket may stay until its timeout, because gloo tells a closed connection's error only
to messages that wait to be sent or received (``Pair::signalException`` in ``tcp/pair.cc``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from dssync.errors import CommunicatorError

Endpoint = tuple[str, int]
"""IP address as text and port."""

_Ends = frozenset[object]
"""Endpoints of an IP connection, or names of a Unix one."""

# A sockaddr starts with the family in host order and the port in network order.
_ADDRESS_BYTES = {socket.AF_INET: slice(4, 8), socket.AF_INET6: slice(8, 24)}


class OpenSocket(NamedTuple):
    """A connected socket of this process; the inode tells it from a later use of the number."""

    descriptor: int
    inode: int


def listener_endpoint(blob: bytes) -> Endpoint:
    """Reads where a member listens from the blob that gloo publishes for it.

    The blob holds the host name and the address, each after its length as 8 bytes in host order,
    then the identifiers of the pairs. The address is a sockaddr and a sequence number.

    Raises:
        CommunicatorError: The blob is not of this layout.
    """
    try:
        (name_bytes,) = struct.unpack_from("=Q", blob)
        sockaddr = blob[8 + name_bytes + 8 :]
        family, port = (
            struct.unpack_from("=H", sockaddr)[0],
            struct.unpack_from("!H", sockaddr, 2)[0],
        )
        return socket.inet_ntop(family, sockaddr[_ADDRESS_BYTES[family]]), port
    except (struct.error, KeyError, ValueError) as error:
        raise CommunicatorError(
            f"cannot read a listener from a gloo blob of {len(blob)} bytes, {blob[:32].hex()}...: "
            "its layout is not that of torch 2.15"
        ) from error


class Connections:
    """This process' connections. Looks at each once: a connected socket never changes its ends.

    Each build asks for those of its group, and most of what is open belongs to other groups.
    """

    def __init__(self) -> None:
        self._ends: dict[OpenSocket, _Ends] = {}

    def to(self, listeners: Collection[Endpoint]) -> list[OpenSocket]:
        """Those that have one of the listeners at either end. May be called from any thread."""
        known = self._ends
        # Builds at the same time forget what the others found: they look at it once more.
        self._ends = found = {
            each: ends
            for each in _open_sockets()
            if (ends := known.get(each) or _ends_of(each)) is not None
        }
        return [each for each, ends in found.items() if not ends.isdisjoint(listeners)]


def shut_down(sockets: Iterable[OpenSocket]) -> None:
    """Shuts both directions of those sockets that are still open; never blocks."""
    for known in sockets:
        with contextlib.suppress(OSError), _duplicate(known.descriptor) as duplicate:
            if os.fstat(duplicate.fileno()).st_ino == known.inode:
                duplicate.shutdown(socket.SHUT_RDWR)


def _open_sockets() -> Iterator[OpenSocket]:
    for name in os.listdir("/proc/self/fd"):
        try:
            found = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode):
            yield OpenSocket(int(name), found.st_ino)


def _ends_of(known: OpenSocket) -> _Ends | None:
    """Where a socket begins and ends; None if it is not connected, or open no more."""
    with contextlib.suppress(OSError), _duplicate(known.descriptor) as duplicate:
        # Asking a listener for its peer is an OSError, so that it is never taken: shutting it
        # down would end the process.
        ends = frozenset(end[:2] for end in (duplicate.getpeername(), duplicate.getsockname()))
        return ends if os.fstat(duplicate.fileno()).st_ino == known.inode else None
    return None


def _duplicate(descriptor: int) -> socket.socket:
    """A duplicate to look at and act on: other threads may close and reuse the number any time.

    Raises:
        OSError: The descriptor is closed or no socket.
    """
    duplicate = os.dup(descriptor)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise
