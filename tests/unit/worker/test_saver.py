"""What a save costs the training, and what is saved, with a coordinator in the hands of a test."""

import resource
from pathlib import Path

import torch

import dssync
from dssync.control import messages as m
from dssync.worker import checkpoint
from dssync.worker.journal import Journal
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saver import Saver, Watch, stage
from unit.worker.other_end import OWN, Coordinator

ELEMENTS = 4 << 20
MATE = f"1.0.{'1' * 32}"
LEDGER = m.LedgerState(1, (m.TrackState("", 4, 2, ()),), 0)


def faults() -> int:
    """Return how often the system had to give this thread memory so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def assign(number: int, kind: str, first: str = OWN) -> m.Assign:
    return m.Assign(number, 0, kind, False, (), (), 1, 1, first, "", True, 0.5, 1)


def saver_of(coordinator: Coordinator, settings: dssync.Checkpoint) -> Saver:
    model = torch.nn.ParameterList([torch.ones(4)])
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    watch = Watch(Measure(lambda _: None, 0), Journal("", ""))
    return Saver(coordinator.link, payload, settings, 1, watch)


def let_publish(coordinator: Coordinator, number: int) -> None:
    """Answer what the writer of a checkpoint asks."""
    coordinator.tell(m.LedgerCopy(number, LEDGER, 1, ()))
    coordinator.hears(m.AskPublish(number))
    coordinator.tell(m.MayPublish(number, 1))


def test_the_first_copy_finds_its_memory_touched(tmp_path: Path) -> None:
    coordinator = Coordinator()
    model = torch.nn.ParameterList([torch.ones(ELEMENTS)])
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    settings = dssync.Checkpoint(tmp_path, every_steps=1000)
    watch = Watch(Measure(lambda _: None, 0), Journal("", ""))
    saver = Saver(coordinator.link, payload, settings, 1, watch)
    before = faults()
    stage(payload, None)
    fresh = faults() - before

    saver.after(assign(0, "train"))
    saver.close()
    before = faults()
    saver.after(assign(1, "final"))
    waited_for = faults() - before

    coordinator.tell(m.LedgerCopy(1, LEDGER, 1, ()))
    coordinator.hears(m.AskPublish(1))
    coordinator.tell(m.MayPublish(1, 1))
    saver.close()
    assert checkpoint.read(tmp_path / "checkpoint-000001").facts.round == 1
    assert waited_for < fresh / 2


def test_a_save_that_falls_due_while_one_is_written_comes_next(tmp_path: Path) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    saver.after(assign(3, "train"))
    coordinator.hears(m.AskLedger(3))
    saver.after(assign(7, "train"))
    saver.after(assign(8, "train"))
    let_publish(coordinator, 3)
    saver.close()
    asked = len(coordinator.heard)

    saver.after(assign(9, "train"))

    let_publish(coordinator, 9)
    saver.close()
    assert coordinator.heard[asked] == m.AskLedger(9)
    saved = sorted(tmp_path.glob("checkpoint-*"))
    assert [checkpoint.read(each).facts.round for each in saved] == [3, 9]


def test_a_flush_that_finds_the_writer_busy_is_asked_for_again(tmp_path: Path) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4))
    saver.after(assign(3, "train", MATE))
    saver.after(assign(4, "flush"))
    saver.after(assign(7, "train"))
    # Somebody else asked for this one.
    saver.after(assign(8, "flush"))
    let_publish(coordinator, 4)
    saver.close()
    asked_meanwhile = m.AskFlush() in coordinator.heard

    saver.after(assign(9, "train"))

    assert not asked_meanwhile
    assert coordinator.heard[-1] == m.AskFlush()


def test_who_enters_again_asks_again_for_the_flush_that_is_due(tmp_path: Path) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4))
    saver.after(assign(0, "train"))
    saver.close()
    saver.after(assign(3, "train"))
    saver.after(assign(4, "train"))
    asked_once = coordinator.heard.count(m.AskFlush())

    with coordinator.link.condition:
        coordinator.link.state.restart()
    saver.after(assign(5, "train"))

    assert asked_once == 1
    assert coordinator.heard.count(m.AskFlush()) == 2
