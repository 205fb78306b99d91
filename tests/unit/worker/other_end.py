"""The other end of a member's link, in the hands of a test."""

import threading
from collections.abc import Callable

from dssync.control import messages as m
from dssync.worker.link import Link, Setup

OWN = f"0.0.{'0' * 32}"


class Coordinator:
    """Hears what a member sends, and tells it what the test wants."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._changed = threading.Condition()
        self.link = Link(Setup(OWN), self._take, lambda _: None)

    def _take(self, messages: list[bytes]) -> None:
        with self._changed:
            self.heard += [m.MEMBER.decode(each) for each in messages]
            self._changed.notify_all()

    def tell(self, message: m.ToMemberBody) -> None:
        self.link.receive(m.TO_MEMBER.encode(message))

    def hears(self, *messages: object) -> None:
        """Wait for messages, each as often as it is named."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: all(self.heard.count(x) >= messages.count(x) for x in messages), 30
            )
            assert found, self.heard

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait as a training thread does."""
        with self.link.condition:
            assert self.link.condition.wait_for(ready, 30)
