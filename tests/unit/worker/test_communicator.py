"""When groups are built and destroyed: beside the computation, unless somebody waits."""

import threading

import pytest
import torch

from dssync.worker.communicator import Communicator, Communicators, Group, Operation
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

SPEC = Communicator("c", ("0.0.a", "1.0.b"))
SOON_SECONDS = 10.0


class Built:
    """A group that only notes its end."""

    def __init__(self) -> None:
        self.is_closed = False

    def allreduce(self, tensor: torch.Tensor) -> Operation:
        raise AssertionError("nothing is summed here")

    def abandon(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True


class Builder:
    """Builds at once, and says that it began."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.built = Built()

    def build(self, spec: Communicator, mailbox: Mailbox) -> Group:
        self.began.set()
        return self.built


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


@pytest.fixture
def built(communicators: Communicators, builder: Builder) -> Built:
    """A group that stands."""
    communicators.prepare(SPEC).result(SOON_SECONDS)
    return builder.built


def test_a_group_that_no_round_uses_ends_at_once_between_rounds(
    communicators: Communicators, built: Built
) -> None:
    communicators.retire(SPEC.id)

    assert built.is_closed


def test_a_group_that_no_round_uses_ends_when_the_round_is_over(
    communicators: Communicators, built: Built
) -> None:
    with communicators.held_back():
        communicators.retire(SPEC.id)
        is_closed_beside_the_round = built.is_closed

    assert built.is_closed
    assert not is_closed_beside_the_round


def test_a_group_that_waits_for_the_end_of_the_round_ends_with_everything(
    communicators: Communicators, built: Built
) -> None:
    with communicators.held_back():
        communicators.retire(SPEC.id)
        communicators.close_all(SOON_SECONDS)

        assert built.is_closed
