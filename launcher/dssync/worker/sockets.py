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
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dssync.errors import CommunicatorError

Endpoint = tuple[str, int]
"""IP address as text and port."""

# A sockaddr starts with the family in host order and the port in network order.
_ADDRESS_BYTES = {socket.AF_INET: slice(4, 8), socket.AF_INET6: slice(8, 24)}


@dataclass(frozen=True)
class OpenSocket:
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


def connected_sockets(listeners: Collection[Endpoint]) -> list[OpenSocket]:
    """This process' connections that have one of the listeners at either end."""
    descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    return [
        OpenSocket(descriptor, inode)
        for descriptor in descriptors
        if (inode := _inode_if_connected(descriptor, listeners)) is not None
    ]


def shut_down(sockets: Iterable[OpenSocket]) -> None:
    """Shuts both directions of those sockets that are still open; never blocks."""
    for known in sockets:
        with contextlib.suppress(OSError), _duplicate(known.descriptor) as duplicate:
            if os.fstat(duplicate.fileno()).st_ino == known.inode:
                duplicate.shutdown(socket.SHUT_RDWR)


def _inode_if_connected(descriptor: int, listeners: Collection[Endpoint]) -> int | None:
    with contextlib.suppress(OSError), _duplicate(descriptor) as duplicate:
        # Asking a listener for its peer is an OSError, so that it is never taken: shutting it
        # down would end the process.
        ends = (duplicate.getpeername(), duplicate.getsockname())
        if any(end[:2] in listeners for end in ends):
            return os.fstat(duplicate.fileno()).st_ino
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
