"""How a member comes in when the coordinator has second thoughts."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from dssync.control import messages as m
from dssync.worker.entrance import Entrance
from dssync.worker.journal import Journal
from dssync.worker.link import Link, Setup
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saver import Saver, Watch

SYNC = m.SyncSettings("grid", 2, 1, "relaxed", 0)
HELLO = m.Enter(("w float32 (1,)",), SYNC, "127.0.0.1:1", -1)


class Coordinator:
    """The other end of a link, in the hands of a test."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._changed = threading.Condition()
        self.link = Link(Setup(f"0.0.{'0' * 32}"), self._take, lambda _: None)

    def _take(self, messages: list[bytes]) -> None:
        with self._changed:
            self.heard += [m.MEMBER.decode(each) for each in messages]
            self._changed.notify_all()

    def tell(self, message: m.ToMemberBody) -> None:
        self.link.receive(m.TO_MEMBER.encode(message))

    def hears(self, count: int) -> list[object]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, 30)
            return self.heard

    def wait(self, ready: Callable[[], bool]) -> None:
        with self.link.condition:
            assert self.link.condition.wait_for(ready, 30)


def test_a_member_that_is_put_out_before_it_was_let_in_says_hello_again() -> None:
    coordinator = Coordinator()
    model = torch.nn.Linear(1, 1)
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    measure = Measure(lambda _: None, 0)
    saver = Saver(coordinator.link, payload, None, 1, Watch(measure, Journal("", "")))
    entrance = Entrance(coordinator.link, payload, measure, coordinator.wait, saver)
    with ThreadPoolExecutor(1) as worker:
        entered = worker.submit(entrance.enter, HELLO)
        coordinator.hears(1)

        coordinator.tell(m.Bench("the coordinator lost contact with this pod"))

        assert coordinator.hears(2) == [HELLO, HELLO]
        coordinator.tell(m.Start(5, 0, False))
        entered.result(30)
    assert coordinator.link.state.next_round == 5
