"""How a member comes in when the coordinator has second thoughts."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

import dssync
from dssync.control import messages as m
from dssync.worker import checkpoint
from dssync.worker.entrance import LONGEST_PAUSE_SECONDS, Entrance, pause_after
from dssync.worker.journal import Journal
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saved import stage
from dssync.worker.saver import Saver, Watch
from unit.worker.other_end import Coordinator

SYNC = m.SyncSettings("grid", 2, 1, "relaxed", 0)
HELLO = m.Enter(("w float32 (1,)",), SYNC, "127.0.0.1:1", -1)


def entrance_of(
    coordinator: Coordinator, model: torch.nn.Module, saves: dssync.Checkpoint | None = None
) -> Entrance:
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    measure = Measure(lambda _: None, 0)
    saver = Saver(coordinator.link, payload, saves, 1, Watch(measure, Journal("", "")))
    return Entrance(coordinator.link, payload, measure, coordinator.wait, saver)


def test_a_member_that_is_put_out_before_it_was_let_in_says_hello_again() -> None:
    coordinator = Coordinator()
    entrance = entrance_of(coordinator, torch.nn.Linear(1, 1))
    with ThreadPoolExecutor(1) as worker:
        entered = worker.submit(entrance.enter, HELLO)
        coordinator.hears(HELLO)

        coordinator.tell(m.Bench("the coordinator lost contact with this pod"))

        coordinator.hears(HELLO, replace(HELLO, generation=1))
        coordinator.tell(m.Start(4, 0, False))  # for the first hello
        coordinator.tell(m.Start(5, 0, False, generation=1))
        entered.result(30)
    assert coordinator.link.state.next_round == 5


def saved_in(path: Path) -> torch.nn.Module:
    """Return a model that is saved there."""
    model = torch.nn.Linear(1, 1)
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    facts = checkpoint.Facts("consensus", 1, 9, 0, "grid", 2, 0)
    ledger = m.LedgerState(0, (), 0)
    state = stage(payload, None).state
    assert isinstance(state, dict)
    checkpoint.write(path / f"{checkpoint.PREFIX}1", state, ledger, facts)
    return model


def test_who_finds_nobody_after_the_end_takes_the_last_state_from_the_checkpoint(
    tmp_path: Path,
) -> None:
    coordinator, saved, model = Coordinator(), saved_in(tmp_path), torch.nn.Linear(1, 1)
    entrance = entrance_of(coordinator, model, dssync.Checkpoint(tmp_path))
    coordinator.tell(m.Completed(0))

    entrance.enter(HELLO)

    assert torch.equal(model.weight, saved.weight)


def test_who_held_the_job_s_values_at_its_end_keeps_them(tmp_path: Path) -> None:
    coordinator, model = Coordinator(), torch.nn.Linear(1, 1)
    saved_in(tmp_path)
    own = model.weight.clone()
    entrance = entrance_of(coordinator, model, dssync.Checkpoint(tmp_path))
    coordinator.tell(m.Completed(0))

    entrance.enter(replace(HELLO, applied_round=9))

    assert torch.equal(model.weight, own)


def test_who_reaches_no_donor_says_so_and_tries_another(capsys: pytest.CaptureFixture[str]) -> None:
    coordinator = Coordinator()
    entrance = entrance_of(coordinator, torch.nn.Linear(1, 1))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with ThreadPoolExecutor(1) as worker:
        entered = worker.submit(entrance.enter, HELLO)
        coordinator.hears(HELLO)

        coordinator.tell(m.Fetch("0.0.a", address))

        refused = "[Errno 111] Connection refused"
        coordinator.hears(HELLO, m.FetchFailed("0.0.a", refused))
        coordinator.tell(m.Fetch("1.0.b", address))
        coordinator.hears(HELLO, m.FetchFailed("0.0.a", refused), m.FetchFailed("1.0.b", refused))
        coordinator.tell(m.Start(4, 0, False))
        entered.result(30)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        f"dssync: cannot get the training state of {donor}" for donor in ("0.0.a", "1.0.b")
    ]


def test_another_donor_is_tried_at_once_and_then_less_and_less_often() -> None:
    pauses = [pause_after(failures) for failures in (*range(12), 10_000)]

    assert pauses[:3] == [0.0, 0.0, 0.2]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
