"""A small network on this machine: each launcher in a namespace of its own, and ways to cut it.

The namespaces hang on one bridge. A cut is a pair of blackhole routes: packets vanish, and no
connection ends, as when a switch fails. Needs the right to make namespaces.
"""

import itertools
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_numbers = itertools.count(os.getpid() % 5000)


class Network:
    """Namespaces on a bridge.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self._tag = f"ds{next(_numbers) % 10000}"
        self._names = [f"{self._tag}n{number}" for number in range(size)]
        self.addresses = [f"10.213.77.{number + 1}" for number in range(size)]
        _ip("link", "add", self._tag, "type", "bridge")
        _ip("link", "set", self._tag, "up")
        for number, name in enumerate(self._names):
            self._add(name, f"{self._tag}v{number}", self.addresses[number])

    def prefix(self, number: int) -> list[str]:
        """Return what to put before a command so that it runs in one of the namespaces."""
        return ["ip", "netns", "exec", self._names[number]]

    @contextmanager
    def cut(self, here: Iterable[int], there: Iterable[int]) -> Iterator[None]:
        """Let nothing pass between two sides for a while."""
        pairs = list(itertools.product(here, there))
        self._route("add", pairs)
        try:
            yield
        finally:
            self._route("del", pairs)

    def close(self) -> None:
        """Take everything down."""
        for number, name in enumerate(self._names):
            # A namespace lives on for as long as its sockets try to send, and its link with it.
            subprocess.run(["ip", "link", "del", f"{self._tag}v{number}"], check=False)
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", self._tag], check=False)

    def _add(self, name: str, outer: str, address: str) -> None:
        _ip("netns", "add", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", outer, "master", self._tag, "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")

    def _route(self, verb: str, pairs: list[tuple[int, int]]) -> None:
        for one, other in (*pairs, *((b, a) for a, b in pairs)):
            where = f"{self.addresses[other]}/32"
            _ip("-n", self._names[one], "route", verb, "blackhole", where)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def can_make_namespaces() -> bool:
    """Tell whether this user may make network namespaces and links."""
    try:
        _ip("netns", "add", f"dstry{os.getpid()}")
        _ip("netns", "del", f"dstry{os.getpid()}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return os.geteuid() == 0
