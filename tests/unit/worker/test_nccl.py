"""The NCCL backend over a scripted process group: there is no GPU where these tests run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.communicator import Communicator, Communicators
from dssync.worker.nccl import NcclBackend
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox

PAIR = Communicator("pair", ("me", "mate"))
PATIENCE = 10.0


class ScriptedOperation:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: str | None = None

    def over(self) -> bool:
        if self.error is not None:
            raise CommunicatorError(self.error)
        return self.ended.is_set()


class ScriptedGroup:
    """Does what a test says: its operations end when told to, its abort may hang."""

    def __init__(self) -> None:
        self.operations: list[ScriptedOperation] = []
        self.launched = threading.Semaphore(0)
        self.refusal: str | None = None
        self.hangs = threading.Event()
        self.hangs.set()
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def staged(self) -> object:
        return threading.current_thread().name

    def launch(self, tensor: torch.Tensor, staged: object) -> ScriptedOperation:
        self.threads.add(threading.current_thread().name)
        assert staged == "MainThread", "the mark is set on the stream of whoever fills the tensor"
        if self.refusal is not None:
            raise RuntimeError(self.refusal)
        self.operations.append(ScriptedOperation())
        self.launched.release()
        return self.operations[-1]

    def abort(self) -> None:
        self.calls.append("abort")
        self.hangs.wait(PATIENCE)

    def destroy(self) -> None:
        self.calls.append("destroy")


class Scene:
    """A backend whose groups a test scripts."""

    def __init__(self, abort_seconds: float) -> None:
        self.groups: dict[str, ScriptedGroup] = {}
        self.hung: list[str] = []
        self.exited = threading.Event()
        self.reaper = Reaper()
        self.mailbox = Mailbox(lambda *_: None)
        backend = NcclBackend("me", self.reaper, self.connect, self.on_hung, abort_seconds)
        self.communicators = Communicators(backend, self.mailbox, self.reaper)

    def connect(self, spec: Communicator, rank: int, mailbox: Mailbox) -> ScriptedGroup:
        assert rank == spec.rank_of("me")
        return self.groups.setdefault(spec.id, ScriptedGroup())

    def on_hung(self, name: str) -> None:
        self.hung.append(name)
        self.exited.set()

    def start(self, spec: Communicator = PAIR) -> "Sum":
        group = self.communicators.prepare(spec).result(PATIENCE)
        started = Sum()
        group.allreduce(torch.ones(3)).when_done(started.on_done)
        return started


class Sum:
    """An all-reduce as its owner sees it."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._error: Exception | None = None

    def on_done(self, error: Exception | None) -> None:
        assert not self._ended.is_set(), "an operation ends once"
        self._error = error
        self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def error(self) -> Exception | None:
        assert self._ended.wait(PATIENCE)
        return self._error


@contextmanager
def scene(abort_seconds: float = PATIENCE) -> Iterator[Scene]:
    made = Scene(abort_seconds)
    yield made
    for group in made.groups.values():
        group.hangs.set()
    assert made.communicators.close_all(PATIENCE), "the reaper did not come to its end"


def test_an_operation_ends_when_its_event_has_passed() -> None:
    with scene() as nccl:
        sum_ = nccl.start()
        group = nccl.groups["pair"]
        assert group.launched.acquire(timeout=PATIENCE)
        assert not sum_.ended

        group.operations[0].ended.set()

        assert sum_.error() is None
        assert group.threads == {"dssync-nccl"}


def test_an_operation_whose_group_reports_an_error_fails_with_it() -> None:
    with scene() as nccl:
        sum_ = nccl.start()
        assert nccl.groups["pair"].launched.acquire(timeout=PATIENCE)

        nccl.groups["pair"].operations[0].error = "remote error"

        assert str(sum_.error()) == "remote error"


def test_who_waits_for_an_operation_gets_its_end_or_its_error() -> None:
    with scene() as nccl:
        group = nccl.communicators.prepare(PAIR).result(PATIENCE)
        good, bad = group.allreduce(torch.ones(3)), group.allreduce(torch.ones(3))
        for _ in range(2):
            assert nccl.groups["pair"].launched.acquire(timeout=PATIENCE)
        assert not good.wait(0.001)

        nccl.groups["pair"].operations[0].ended.set()
        nccl.groups["pair"].operations[1].error = "remote error"

        assert good.wait(PATIENCE)
        with pytest.raises(CommunicatorError, match="remote error"):
            bad.wait(PATIENCE)
        called: list[object] = []
        good.when_done(called.append)
        assert called == [], "whoever has waited knows"


def test_an_operation_that_ended_before_it_was_asked_tells_at_once() -> None:
    with scene() as nccl:
        nccl.groups["pair"] = ScriptedGroup()
        nccl.groups["pair"].refusal = "out of memory"
        group = nccl.communicators.prepare(PAIR).result(PATIENCE)
        first, later = group.allreduce(torch.ones(3)), group.allreduce(torch.ones(3))
        with pytest.raises(CommunicatorError, match="out of memory"):
            later.wait(PATIENCE)
        ended = Sum()

        first.when_done(ended.on_done)

        assert ended.ended
        assert "out of memory" in str(ended.error())


def test_an_operation_that_cannot_be_launched_fails() -> None:
    with scene() as nccl:
        nccl.groups["pair"] = ScriptedGroup()
        nccl.groups["pair"].refusal = "out of memory"

        assert str(nccl.start().error()) == "communicator pair cannot sum: out of memory"


def test_abandoning_returns_at_once_and_its_operations_fail_when_the_abort_is_over() -> None:
    with scene() as nccl:
        sum_ = nccl.start()
        group = nccl.groups["pair"]
        assert group.launched.acquire(timeout=PATIENCE)
        group.hangs.clear()

        nccl.communicators.abandon("pair")

        assert nccl.communicators.counts().operations_abandoned == 1
        assert not sum_.ended, "the device may still write to the tensor"
        group.hangs.set()
        assert "was given up while it was summing" in str(sum_.error())
        assert nccl.reaper.wait_idle(PATIENCE)
        assert group.calls == ["abort", "destroy"]


def test_the_next_group_is_not_launched_before_the_abort_is_over() -> None:
    with scene() as nccl:
        nccl.start()
        first = nccl.groups["pair"]
        assert first.launched.acquire(timeout=PATIENCE)
        first.hangs.clear()
        nccl.communicators.abandon("pair")

        after = nccl.start(Communicator("after", ("me", "other")))
        assert nccl.groups["after"].operations == []

        first.hangs.set()
        assert nccl.groups["after"].launched.acquire(timeout=PATIENCE)
        nccl.groups["after"].operations[0].ended.set()
        assert after.error() is None


def test_an_abort_that_hangs_past_its_deadline_ends_the_process() -> None:
    with scene(abort_seconds=0.05) as nccl:
        nccl.start()
        assert nccl.groups["pair"].launched.acquire(timeout=PATIENCE)
        nccl.groups["pair"].hangs.clear()

        nccl.communicators.abandon("pair")

        assert nccl.exited.wait(PATIENCE)
        assert nccl.hung == ["pair"]


def test_a_group_that_is_retired_is_destroyed_without_an_abort() -> None:
    with scene() as nccl:
        nccl.communicators.prepare(PAIR).result(PATIENCE)

        nccl.communicators.retire("pair")

        assert nccl.reaper.wait_idle(PATIENCE)
        assert nccl.groups["pair"].calls == ["destroy"]


def test_a_group_given_up_takes_no_operation() -> None:
    with scene() as nccl:
        group = nccl.communicators.prepare(PAIR).result(PATIENCE)
        group.close()

        with pytest.raises(CommunicatorError, match="communicator pair was given up"):
            group.allreduce(torch.ones(1))


@pytest.mark.parametrize(
    ("raised", "seen", "words"),
    [
        (RuntimeError("no route"), CommunicatorError, "me, mate could not be built: no route"),
        (BuildCancelledError("cancelled"), BuildCancelledError, "cancelled"),
    ],
)
def test_a_build_fails_with_what_happened(
    raised: Exception, seen: type[Exception], words: str
) -> None:
    def connect(spec: Communicator, rank: int, mailbox: Mailbox) -> ScriptedGroup:
        raise raised

    backend = NcclBackend("me", Reaper(), connect, print)

    with pytest.raises(seen, match=words) as caught:
        backend.build(PAIR, Mailbox(lambda *_: None))
    assert type(caught.value) is seen
