"""What becomes of a member's communicators when the coordinator changes."""

import base64
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from dssync.control import messages as m
from dssync.control.takeover import Adopt
from dssync.errors import CommunicatorError
from dssync.worker.buckets import HOST
from dssync.worker.communicator import Communicator
from dssync.worker.link import Link, Setup
from dssync.worker.measure import Measure
from dssync.worker.rendezvous import Rendezvous

OWN, MATE = (f"{slot}.0.{'0' * 32}" for slot in range(2))


class Pair:
    """Two members in one process, who hear of each other's addresses and of nothing else."""

    def __init__(self) -> None:
        self.link, other = (
            Link(Setup(key), partial(self._pass_on, to), lambda _: None)
            for key, to in ((OWN, MATE), (MATE, OWN))
        )
        self.sides = {
            key: Rendezvous(link, HOST, Measure(lambda _: None, 0))
            for key, link in ((OWN, self.link), (MATE, other))
        }

    def _pass_on(self, to: str, messages: list[bytes]) -> None:
        for said in map(m.MEMBER.decode, messages):
            assert isinstance(said, m.Blob)
            value = base64.b64decode(said.value)
            self.sides[to].on_blob(said.communicator, said.key, value)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    for side in made.sides.values():
        side.close()


def test_a_new_term_ends_what_is_under_way_on_communicators_of_the_last_one(pair: Pair) -> None:
    shared = Communicator("of the last term", (OWN, MATE))
    builds = [side.communicators.prepare(shared) for side in pair.sides.values()]
    group, _ = [each.result(30) for each in builds]
    operation = group.allreduce(torch.ones(4))  # Its mate never comes.

    pair.link.receive(m.TO_MEMBER.encode(Adopt(7, 0, True, ())))

    with pytest.raises(CommunicatorError):
        operation.wait(30)
    assert pair.sides[OWN].communicators.counts().cached == 0
