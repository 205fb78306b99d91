"""When the groups of later rounds are built: beside the computation, unless somebody waits."""

import threading

import pytest
import torch

from dssync.worker.communicator import Communicator, Communicators, Group, Operation
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

SPEC = Communicator("c", ("0.0.a", "1.0.b"))
SOON_SECONDS = 10.0


class Built:
    """A group that does nothing."""

    def allreduce(self, tensor: torch.Tensor) -> Operation:
        raise AssertionError("nothing is summed here")

    def abandon(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Builder:
    """Builds at once, and says that it began."""

    def __init__(self) -> None:
        self.began = threading.Event()

    def build(self, spec: Communicator, mailbox: Mailbox) -> Group:
        self.began.set()
        return Built()


@pytest.fixture
def builder() -> Builder:
    return Builder()


def made(builder: Builder, held_back_seconds: float) -> Communicators:
    return Communicators(builder, Mailbox(lambda *_: None), Reaper(), held_back_seconds)


@pytest.fixture
def communicators(builder: Builder) -> Communicators:
    """Those of a worker in whose rounds a build would wait for longer than a test lasts."""
    return made(builder, 3600.0)


def test_a_group_is_built_at_once_between_rounds(communicators: Communicators) -> None:
    assert communicators.prepare(SPEC).result(SOON_SECONDS)


def test_a_group_for_later_is_built_when_the_round_is_over(
    communicators: Communicators, builder: Builder
) -> None:
    with communicators.held_back():
        pending = communicators.prepare(SPEC)
        began_beside_the_round = builder.began.wait(0.05)

    assert pending.result(SOON_SECONDS)
    assert not began_beside_the_round


def test_a_group_that_the_round_waits_for_is_built_at_once(communicators: Communicators) -> None:
    with communicators.held_back():
        pending = communicators.prepare(SPEC)
        communicators.hasten()

        assert pending.result(SOON_SECONDS)


def test_a_build_does_not_wait_long_for_a_round(builder: Builder) -> None:
    communicators = made(builder, 0.01)
    with communicators.held_back():
        assert communicators.prepare(SPEC).result(SOON_SECONDS)
