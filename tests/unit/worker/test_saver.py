"""What a save costs the training, and what is saved, with a coordinator in the hands of a test."""

import gc
import resource
import threading
import weakref
from pathlib import Path

import pytest
import torch

import dssync
from dssync.control import messages as m
from dssync.control.takeover import NewTerm
from dssync.errors import CheckpointError
from dssync.worker import checkpoint, saved
from dssync.worker.journal import Journal
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saver import Saver, Watch
from dssync.worker.staging import Listing, Memory, Snapshot
from unit.worker.other_end import OWN, Coordinator

ELEMENTS = 4 << 20
MATE = f"1.0.{'1' * 32}"
LEDGER = m.LedgerState(1, (m.TrackState("", 4, 2, ()),), 0)


def faults() -> int:
    """Return how often the system had to give this thread memory so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def assign(number: int, kind: str, first: str = OWN) -> m.Assign:
    return m.Assign(number, 0, kind, False, (), (), 1, 1, first, "", True, 0.5, 1)


def saver_of(coordinator: Coordinator, settings: dssync.Checkpoint, elements: int = 4) -> Saver:
    model = torch.nn.ParameterList([torch.ones(elements)])
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    watch = Watch(Measure(lambda _: None, 0), Journal("", ""))
    return Saver(coordinator.link, payload, settings, 1, watch)


def let_publish(coordinator: Coordinator, number: int) -> None:
    """Answer what the writer of a checkpoint asks."""
    coordinator.tell(m.LedgerCopy(number, LEDGER, 1, ()))
    coordinator.hears(m.AskPublish(number))
    coordinator.tell(m.MayPublish(number, 1))


def test_a_save_that_is_due_does_not_wait_until_memory_is_touched(tmp_path: Path) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=2), ELEMENTS)

    saver.after(assign(0, "train"))
    saver.after(assign(1, "train"))

    assert coordinator.heard == [m.AskFlush()]


def test_the_first_copy_finds_its_memory_touched(tmp_path: Path) -> None:
    coordinator = Coordinator()
    model = torch.nn.ParameterList([torch.ones(ELEMENTS)])
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    settings = dssync.Checkpoint(tmp_path, every_steps=1000)
    watch = Watch(Measure(lambda _: None, 0), Journal("", ""))
    saver = Saver(coordinator.link, payload, settings, 1, watch)
    before = faults()
    saved.stage(payload, None)
    fresh = faults() - before

    saver.after(assign(0, "train"))
    saver.close()
    before = faults()
    saver.after(assign(1, "final"))
    waited_for = faults() - before

    coordinator.tell(m.LedgerCopy(1, LEDGER, 1, ()))
    coordinator.tell(m.Completed(0))
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


def test_a_save_is_due_though_the_round_that_makes_it_so_is_not_applied_here(
    tmp_path: Path,
) -> None:
    """A new term jumps over some rounds, and who is skipped applies none."""
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4))
    saver.after(assign(5, "train"))
    saver.close()
    saver.after(assign(6, "train"))
    asked_early = m.AskFlush() in coordinator.heard

    saver.after(assign(9, "train"))

    assert not asked_early
    assert m.AskFlush() in coordinator.heard


def test_the_last_checkpoint_needs_nobody_once_the_end_is_recorded(tmp_path: Path) -> None:
    """Others leave soon after the end, the coordinator too; and another term undoes nothing."""
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path))
    coordinator.tell(m.LedgerCopy(4, LEDGER, 1, ()))
    saver.after(assign(4, "final"))
    coordinator.tell(NewTerm(2))
    coordinator.tell(m.Completed(0))

    saver.close()

    assert [each.facts.round for each in checkpoint.newest(tmp_path, raised)] == [4]
    assert m.AskPublish(4) not in coordinator.heard


def test_the_last_checkpoint_is_waited_for_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, disk, closed = Coordinator(), threading.Event(), threading.Event()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path))
    write = checkpoint.write
    monkeypatch.setattr("dssync.worker.saver.ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(checkpoint, "write", lambda *what: disk.wait(30) and write(*what))
    coordinator.tell(m.LedgerCopy(4, LEDGER, 1, ()))
    coordinator.tell(m.Completed(0))
    saver.after(assign(4, "final"))
    closing = threading.Thread(target=lambda: (saver.close(), closed.set()))
    closing.start()

    gave_up = closed.wait(0.3)
    disk.set()
    closing.join()

    assert not gave_up
    assert [each.facts.round for each in checkpoint.newest(tmp_path, raised)] == [4]


def test_who_takes_over_after_the_end_is_asked_for_the_ledger_that_was_lost(tmp_path: Path) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path))
    saver.after(assign(4, "final"))
    coordinator.tell(m.Completed(0))
    coordinator.hears(m.AskLedger(4))
    coordinator.tell(m.LedgerCopy(4, LEDGER, 2, ()))

    saver.close()

    assert [each.facts.term for each in checkpoint.newest(tmp_path, raised)] == [2]


def test_a_final_flush_without_which_others_went_on_is_not_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path))
    coordinator.tell(m.LedgerCopy(4, LEDGER, 1, ()))
    saver.after(assign(4, "final"))
    coordinator.tell(m.Bench("a new term"))

    saver.close()

    assert not list(tmp_path.iterdir())
    assert "was not saved: the job went on without its final flush" in capfd.readouterr().err


def raised(error: CheckpointError) -> None:
    raise error


def test_a_late_leave_to_publish_an_earlier_checkpoint_is_no_answer(tmp_path: Path) -> None:
    class Late(Coordinator):
        """Lets the answer of a former question come first."""

        def _take(self, messages: list[bytes]) -> None:
            super()._take(messages)
            if m.MEMBER.encode(m.AskPublish(3)) in messages:
                self.tell(m.MayPublish(2, 9))

    coordinator = Late()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    saver.after(assign(3, "train"))

    let_publish(coordinator, 3)

    saver.close()
    assert len(checkpoint.published(tmp_path)) == 1


def test_a_state_that_cannot_be_saved_any_more_stops_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = saver_of(Coordinator(), dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    saver._payload.optimizer.param_groups[0]["schedule"] = object()

    saver.after(assign(2, "train"))
    saver.after(assign(3, "train"))

    saver.close()
    assert "the checkpoint of round 3 was not saved" in capsys.readouterr().err


def test_a_save_copies_what_was_listed_once_while_its_round_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    listed: list[Listing] = []
    copied: list[Listing | None] = []

    def list_ahead(payload: Payload) -> Listing:
        listed.append(saved.list_ahead(payload))
        return listed[-1]

    def stage(payload: Payload, reuse: Memory | None, ahead: Listing | None) -> Snapshot:
        copied.append(ahead)
        return saved.stage(payload, reuse, ahead)

    monkeypatch.setattr("dssync.worker.saver.list_ahead", list_ahead)
    monkeypatch.setattr("dssync.worker.saver.stage", stage)
    for number in range(4):
        each = assign(number, "train")
        saver.foresee(each)
        saver.foresee(each)
        saver._payload.model.get_parameter("0").data = torch.full((4,), float(number))
        saver.after(each)

    let_publish(coordinator, 3)
    saver.close()
    (folder,) = checkpoint.published(tmp_path)
    assert len(listed) == 1
    assert copied == listed
    assert checkpoint.read(folder).state["model"]["0"].tolist() == [3.0] * 4


def test_what_was_listed_in_an_attempt_that_is_over_is_not_saved(tmp_path: Path) -> None:
    coordinator = Coordinator()
    saver = saver_of(coordinator, dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    saver.foresee(assign(3, "train"))
    # Who enters again has another state, perhaps in tensors of its own.
    other = torch.nn.Parameter(torch.full((4,), 7.0))
    saver._payload.model.register_parameter("0", other)

    saver.after(assign(3, "train"))

    let_publish(coordinator, 3)
    saver.close()
    (folder,) = checkpoint.published(tmp_path)
    assert checkpoint.read(folder).state["model"]["0"].tolist() == [7.0] * 4


def test_tensors_that_were_listed_in_vain_are_let_go_with_the_next_round(tmp_path: Path) -> None:
    saver = saver_of(Coordinator(), dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    model = saver._payload.model
    listed = weakref.ref(model.get_parameter("0"))
    saver.foresee(assign(3, "train"))
    model.register_parameter("0", torch.nn.Parameter(torch.ones(4)))
    saver._payload.optimizer.param_groups[0]["params"] = list(model.parameters())
    held = listed() is not None

    saver.after(assign(3, "train", MATE))

    gc.collect()
    assert held
    assert listed() is None
