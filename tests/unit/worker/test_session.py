"""A member's way through a job, whose coordinator is in the hands of the test."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import torch

from dssync.control import messages as m
from dssync.errors import ModelError
from dssync.worker.link import Link, Setup
from dssync.worker.options import SyncOptions
from dssync.worker.payload import Payload
from dssync.worker.session import MemberSession
from unit.worker.other_end import OWN


@contextmanager
def session_that_is_told(
    *told: m.ToMemberBody, model: torch.nn.Module | None = None
) -> Iterator[MemberSession]:
    """Give a session whose hello is answered with these messages."""
    model = model or torch.nn.Linear(2, 1)

    def transmit(messages: list[bytes]) -> None:
        if any(isinstance(m.MEMBER.decode(each), m.Enter) for each in messages):
            tell(link, *told)

    link = Link(Setup(OWN), transmit, lambda _: None)
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with closing(
        MemberSession(link, SyncOptions.of(link.setup, None, None, None), payload)
    ) as made:
        yield made


def tell(link: Link, *told: m.ToMemberBody) -> None:
    for message in told:
        link.receive(m.TO_MEMBER.encode(message))


def alone(number: int, kind: str = "train") -> m.Assign:
    """Return an assignment of a member without mates, which speaks for the job."""
    return m.Assign(number, 0, kind, False, (), (), 1, 1, OWN, "", True, 0.5)


def test_who_comes_when_nobody_is_left_does_not_speak_for_the_job() -> None:
    with session_that_is_told(m.Completed(0)) as session:
        session.join()

        assert session.over
        assert not session.is_first


def test_who_is_drained_before_it_came_in_does_not_speak_for_the_job() -> None:
    with session_that_is_told(m.LastRound(-1)) as session:
        session.join()

        assert session.over
        assert not session.is_first


def test_the_first_member_speaks_for_the_job_until_it_leaves() -> None:
    with session_that_is_told(m.Start(0, 0, True), alone(0)) as session:
        session.join()
        before = session.is_first
        session.sync(idle=False)
        trained = session.is_first

        tell(session.link, m.LastRound(0))

        assert (before, trained, session.is_first) == (False, True, False)


def test_who_leaves_with_the_last_round_of_all_speaks_for_the_job() -> None:
    last = alone(0, "final")
    with session_that_is_told(m.Start(0, 0, True), m.LastRound(0), last) as session:
        session.join()
        session.sync(idle=False)

        assert session.link.state.leaving
        assert session.is_first


def test_a_model_that_became_another_is_refused_in_the_next_round() -> None:
    model = torch.nn.Linear(2, 1)
    with session_that_is_told(m.Start(0, 0, True), alone(0), alone(1), model=model) as session:
        session.join()
        session.sync(idle=False)

        model.bias = torch.nn.Parameter(torch.zeros(2))

        with pytest.raises(ModelError, match=r"'bias' was float32 \(1,\).* is float32 \(2,\)"):
            session.sync(idle=False)
