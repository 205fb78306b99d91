"""What one member does in an attempt, with a coordinator in the hands of a test."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dssync.control import messages as m
from dssync.worker.buckets import Buckets
from dssync.worker.communicator import Communicators
from dssync.worker.gloo import GlooBackend, GlooSettings
from dssync.worker.journal import Journal
from dssync.worker.moments import Moments
from dssync.worker.reaper import Reaper
from dssync.worker.round import Clock, Result, RoundEngine
from dssync.worker.store import Mailbox
from unit.worker.other_end import OWN, Coordinator


def alone(strict: bool) -> m.Assign:
    """Return round 0 without mates."""
    return m.Assign(0, 0, "train", strict, (), (), 1, 1, OWN, "", True, 0.0, 1)


def engine_of(coordinator: Coordinator) -> RoundEngine:
    reaper, link = Reaper(), coordinator.link
    backend = GlooBackend(OWN, reaper, GlooSettings("127.0.0.1"))
    communicators = Communicators(backend, Mailbox(link.send_blob), reaper)
    parameter = torch.zeros(1)
    moments = Moments(torch.optim.SGD([parameter]))
    return RoundEngine(
        link, communicators, Buckets([parameter]), coordinator.wait, Journal("", ""), moments
    )


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
