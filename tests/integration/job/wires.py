"""Cuts connections of a running process, as a network that goes away for a moment does.

The test is the parent of the launchers, so it may take a copy of their sockets and shut those
down: both ends see the connection end, and nothing else of either process changes.
"""

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_PIDFD_GETFD = 438  # the same number on every architecture
_LIBC = ctypes.CDLL(None, use_errno=True)


def cut(pid: int, port: int) -> int:
    """End a process's TCP connections to a port of this machine; return how many there were."""
    towards = set(_inodes_towards(port))
    ended = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.removeprefix("socket:[").removesuffix("]") in towards:
                ended += _shut_down(pid, int(name))
    return ended


def _inodes_towards(port: int) -> Iterator[str]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            yield fields[9]


def _shut_down(pid: int, descriptor: int) -> bool:
    process = os.pidfd_open(pid)
    try:
        copy = _LIBC.syscall(_PIDFD_GETFD, process, descriptor, 0)
        if copy < 0:
            return False  # It was closed meanwhile.
        with socket.socket(fileno=copy) as wire, contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)
        return True
    finally:
        os.close(process)
