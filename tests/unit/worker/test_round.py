"""What one member does in an attempt, with a coordinator in the hands of a test."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dssync.control import messages as m
from dssync.worker.buckets import Buckets
from dssync.worker.communicator import Communicators
from dssync.worker.gloo import GlooBackend, GlooSettings
from dssync.worker.journal import Journal
from dssync.worker.link import Link, Setup
from dssync.worker.reaper import Reaper
from dssync.worker.round import Clock, Result, RoundEngine
from dssync.worker.store import Mailbox

OWN = f"0.0.{'0' * 32}"


class Coordinator:
    """The other end of a member's link."""

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

    def hears(self, message: object) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: message in self.heard, 10), self.heard

    def wait(self, ready: Callable[[], bool]) -> None:
        with self.link.condition:
            assert self.link.condition.wait_for(ready, 10)


def alone(strict: bool) -> m.Assign:
    """Return round 0 without mates."""
    return m.Assign(0, 0, "train", strict, (), (), 1, 1, OWN, "", True, 0.0, 1)


def engine_of(coordinator: Coordinator) -> RoundEngine:
    reaper, link = Reaper(), coordinator.link
    backend = GlooBackend(OWN, reaper, GlooSettings("127.0.0.1"))
    communicators = Communicators(backend, Mailbox(link.send_blob), reaper)
    buckets = Buckets([torch.zeros(1)])
    return RoundEngine(link, communicators, buckets, coordinator.wait, Journal("", ""))


@pytest.mark.parametrize("decision", [m.Commit(0, 0, (7,)), m.Skip(0, 1)])
def test_a_strict_round_without_mates_is_applied_when_it_is_decided(
    decision: m.ToMemberBody,
) -> None:
    coordinator, assign = Coordinator(), alone(strict=True)
    coordinator.tell(m.Start(0, 0, True))
    coordinator.tell(assign)
    engine = engine_of(coordinator)
    known = coordinator.link.state.assignment
    assert known is not None

    with ThreadPoolExecutor(1) as worker:
        result = worker.submit(engine.run, known, (7,), False, Clock())
        coordinator.hears(m.Confirm(0, 0, (7,)))
        assert not result.done()
        coordinator.tell(decision)

        commits = isinstance(decision, m.Commit)
        assert result.result(10) is (Result.SOLO if commits else Result.ABANDONED)
