"""What only a backend that stops in the middle of a build can show.

A real build that is past the rendezvous cannot be stopped at will, so a backend at the seam is.
"""

import threading
from dataclasses import dataclass, field

import pytest
import torch

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.communicator import Communicator, Communicators, Group, Operation
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

PAIR = Communicator("pair", ("a", "b"))


@dataclass
class RecordedGroup:
    """A group that only notes that it was abandoned."""

    abandoned: threading.Event = field(default_factory=threading.Event)

    def allreduce(self, tensor: torch.Tensor) -> Operation:
        raise NotImplementedError

    def abandon(self) -> int:
        self.abandoned.set()
        return 0

    def close(self) -> None:
        raise NotImplementedError


@dataclass
class GatedBackend:
    """A backend whose builds end, with a group or an error, when the test says so."""

    outcome: RecordedGroup | CommunicatorError
    entered: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def build(self, spec: Communicator, mailbox: Mailbox) -> Group:
        self.entered.set()
        assert self.gate.wait(10)
        if isinstance(self.outcome, CommunicatorError):
            raise self.outcome
        return self.outcome


@pytest.fixture
def reaper() -> Reaper:
    return Reaper()


def communicators(backend: GatedBackend, reaper: Reaper) -> Communicators:
    return Communicators(backend, Mailbox(lambda *blob: None), reaper)


def test_abandoning_fails_a_build_that_cannot_be_stopped(reaper: Reaper) -> None:
    backend = GatedBackend(RecordedGroup())
    cache = communicators(backend, reaper)
    pending = cache.prepare(PAIR)
    assert backend.entered.wait(10)

    cache.abandon(PAIR.id)

    assert isinstance(pending.exception(timeout=0), BuildCancelledError)
    backend.gate.set()


def test_a_group_that_comes_too_late_is_abandoned(reaper: Reaper) -> None:
    backend = GatedBackend(group := RecordedGroup())
    cache = communicators(backend, reaper)
    cache.prepare(PAIR)
    assert backend.entered.wait(10)
    cache.abandon(PAIR.id)

    backend.gate.set()

    assert group.abandoned.wait(10)
    assert cache.counts().builds_succeeded == 0


def test_a_failed_build_stays_failed_until_it_is_given_up(reaper: Reaper) -> None:
    backend = GatedBackend(CommunicatorError("a mate is gone"))
    cache = communicators(backend, reaper)
    backend.gate.set()
    cache.prepare(PAIR).exception(timeout=10)

    again = cache.prepare(PAIR)

    assert str(again.exception(timeout=0)) == "a mate is gone"
    cache.abandon(PAIR.id)
    counts = cache.counts()
    assert (counts.builds_failed, counts.builds_cancelled, counts.cached) == (1, 0, 0)


@pytest.mark.parametrize("members", [(), ("a",), ("a", "b", "a")])
def test_a_communicator_needs_two_different_members(members: tuple[str, ...]) -> None:
    with pytest.raises(CommunicatorError, match="two or more different members"):
        Communicator("x", members)


def test_only_members_have_a_rank() -> None:
    assert [PAIR.rank_of(member) for member in PAIR.members] == [0, 1]
    with pytest.raises(CommunicatorError, match="c is no member"):
        PAIR.rank_of("c")
