"""How a member comes in when the coordinator has second thoughts."""

from concurrent.futures import ThreadPoolExecutor

import torch
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.worker.entrance import Entrance
from dssync.worker.journal import Journal
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saver import Saver, Watch
from unit.worker.other_end import Coordinator

SYNC = m.SyncSettings("grid", 2, 1, "relaxed", 0)
HELLO = m.Enter(("w float32 (1,)",), SYNC, "127.0.0.1:1", -1)


def test_a_member_that_is_put_out_before_it_was_let_in_says_hello_again() -> None:
    coordinator = Coordinator()
    model = torch.nn.Linear(1, 1)
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    measure = Measure(lambda _: None, 0)
    saver = Saver(coordinator.link, payload, None, 1, Watch(measure, Journal("", "")))
    entrance = Entrance(coordinator.link, payload, measure, coordinator.wait, saver)
    with ThreadPoolExecutor(1) as worker:
        entered = worker.submit(entrance.enter, HELLO)
        coordinator.hears(HELLO)

        coordinator.tell(m.Bench("the coordinator lost contact with this pod"))

        coordinator.hears(HELLO, replace(HELLO, generation=1))
        coordinator.tell(m.Start(4, 0, False))  # for the first hello
        coordinator.tell(m.Start(5, 0, False, generation=1))
        entered.result(30)
    assert coordinator.link.state.next_round == 5
