"""What one member does in an attempt, with a coordinator in the hands of a test."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.worker.buckets import Buckets
from dssync.worker.communicator import Communicator, Communicators
from dssync.worker.gloo import GlooBackend, GlooSettings
from dssync.worker.journal import Journal
from dssync.worker.moments import Moments
from dssync.worker.reaper import Reaper
from dssync.worker.round import Chores, Clock, Result, RoundEngine
from dssync.worker.store import Mailbox
from unit.worker.other_end import OWN, Coordinator

MATE = f"1.0.{'1' * 32}"


def alone(strict: bool) -> m.Assign:
    """Return round 0 without mates."""
    return m.Assign(0, 0, "train", strict, (), (), 1, 1, OWN, "", True, 0.0, 1)


def in_a_pair() -> tuple[Coordinator, m.Assign]:
    """Return a coordinator that has assigned round 0 with one mate."""
    coordinator = Coordinator()
    coordinator.tell(m.Start(0, 0, True))
    coordinator.tell(replace(alone(strict=False), stages=(m.Stage("c", (OWN, MATE), 0.5),)))
    known = coordinator.link.state.assignment
    assert known is not None
    return coordinator, known


def engine_of(
    coordinator: Coordinator,
    optimizer: torch.optim.Optimizer | None = None,
    mailbox: Mailbox | None = None,
    foresee: Callable[[m.Assign], None] = lambda _: None,
) -> RoundEngine:
    reaper, link = Reaper(), coordinator.link
    backend = GlooBackend(OWN, reaper, GlooSettings("127.0.0.1"))
    mailbox = Mailbox(link.send_blob) if mailbox is None else mailbox
    communicators = Communicators(backend, mailbox, reaper)
    parameter = torch.zeros(1)
    moments = Moments(optimizer or torch.optim.SGD([parameter]))
    chores = Chores(coordinator.wait, foresee)
    return RoundEngine(link, communicators, Buckets([parameter]), chores, Journal("", ""), moments)


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


def test_a_layout_that_has_grown_since_the_round_was_frozen_goes_into_no_sum() -> None:
    """A sum of other sizes than the mates' would end their processes."""
    values = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))]
    optimizer = torch.optim.Adam(values)
    train(optimizer, values[0])
    told = Moments(optimizer).layout
    coordinator = Coordinator()
    coordinator.tell(m.Start(0, 0, True))
    stage = m.Stage("c", (OWN, MATE), 0.5)
    coordinator.tell(replace(alone(strict=False), stages=(stage,), moments=told))
    known = coordinator.link.state.assignment
    assert known is not None
    engine = engine_of(coordinator, optimizer)
    train(optimizer, values[1])

    with ThreadPoolExecutor(1) as worker:
        result = worker.submit(engine.run, known, (7,), False, Clock())
        coordinator.hears(m.Failed(0, 0, "the optimizer's state has another layout"))
        coordinator.tell(m.Abandon(0, 0))

        assert result.result(10) is Result.ABANDONED
    assert coordinator.heard[-1] == m.Abandoned(0, 0)


def test_a_communicator_that_was_given_up_fails_an_attempt_that_stands() -> None:
    """A round that was provisional when a new term began is open until its coordinator ends it."""
    coordinator, known = in_a_pair()
    engine = engine_of(coordinator)
    engine._communicators.abandon("c")

    with ThreadPoolExecutor(1) as worker:
        result = worker.submit(engine.run, known, (7,), False, Clock())
        coordinator.hears(m.Failed(0, 0, "communicator c was given up"))
        assert not result.done()
        coordinator.tell(m.Abandon(0, 0))

        assert result.result(10) is Result.ABANDONED


def mailboxes() -> tuple[Mailbox, Mailbox]:
    """Return two that deliver to each other."""
    mine = Mailbox(lambda *blob: others.deliver(*blob))
    others = Mailbox(lambda *blob: mine.deliver(*blob))
    return mine, others


def take_part(
    mailbox: Mailbox, weight: float, number: int = 0, begin: threading.Event | None = None
) -> None:
    """Do what the mate does in a round, the sum of it once it may begin."""
    backend = GlooBackend(MATE, Reaper(), GlooSettings("127.0.0.1"))
    group = backend.build(Communicator("c", (OWN, MATE)), mailbox)
    buckets = Buckets([torch.ones(1)])
    buckets.stage(weight, number)
    assert begin is None or begin.wait(10)
    for operation in [group.allreduce(each) for each in buckets.buckets()]:
        assert operation.wait(10)
    group.close()


def test_what_comes_after_a_round_is_prepared_before_a_mate_has_begun_its_sum() -> None:
    (mine, others), (coordinator, known) = mailboxes(), in_a_pair()
    begin, foreseen = threading.Event(), []

    def foresee(assign: m.Assign) -> None:
        foreseen.append(assign)
        begin.set()

    engine = engine_of(coordinator, mailbox=mine, foresee=foresee)

    with ThreadPoolExecutor(2) as workers:
        mate = workers.submit(take_part, others, 0.5, 0, begin)
        result = workers.submit(engine.run, known, (7,), False, Clock())
        mate.result(30)

        assert result.result(30) is Result.COMMITTED
    assert foreseen == [known]


@pytest.mark.parametrize(
    ("number", "weight", "counts"), [(0, 0.5, True), (1, 0.5, False), (0, 0.25, False)]
)
def test_a_sum_with_a_mate_in_another_round_or_view_counts_not(
    number: int, weight: float, counts: bool
) -> None:
    """While nobody leads, members may know different views."""
    mine, others = mailboxes()
    coordinator, known = in_a_pair()
    engine = engine_of(coordinator, mailbox=mine)

    with ThreadPoolExecutor(2) as workers:
        mate = workers.submit(take_part, others, weight, number)
        result = workers.submit(engine.run, known, (7,), False, Clock())
        if not counts:
            coordinator.hears(m.Failed(0, 0, "a mate is in another round"))
            coordinator.tell(m.Abandon(0, 0))
        mate.result(30)

        assert result.result(30) is (Result.COMMITTED if counts else Result.ABANDONED)


def train(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> None:
    """Make a step in which one parameter alone has a gradient."""
    optimizer.zero_grad()
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
