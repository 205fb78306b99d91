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
LEDGER = m.LedgerState(1, (m.TrackState("", 4, 2, ()),), 0)


def faults() -> int:
    """Return how often the system had to give this thread memory so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def assign(number: int, kind: str) -> m.Assign:
    return m.Assign(number, 0, kind, False, (), (), 1, 1, OWN, "", True, 0.5, 1)


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
