"""When a checkpoint is due, who writes it, and what it is resumed from.

The member that speaks for the job writes. It stops for one copy of its state, into memory that is
kept for the next copy; what to copy is listed before, and a thread writes from there. All members
track what is due, so that the next one in line takes over when the writer is lost.
"""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

from msgspec.structs import asdict

from dssync import contract
from dssync.control import messages as m
from dssync.errors import CheckpointError, DssyncError, ModelError, TransferError, UsageError
from dssync.worker import checkpoint, sameness
from dssync.worker.journal import Journal
from dssync.worker.link import Link
from dssync.worker.measure import Measure
from dssync.worker.payload import Payload
from dssync.worker.saved import list_ahead, list_all, stage, take_over
from dssync.worker.staging import Listing, Memory, Snapshot
from dssync.worker.word import tell

ANSWER_SECONDS: Final = 30.0
"""How long a written checkpoint waits for the coordinator's word."""
END_SECONDS: Final = 120.0
"""How long the last checkpoint waits for the news that the end is recorded: that is tried for a
minute, and another coordinator takes half of one to take over."""
ENDS: Final = ("final", "suspend")
"""Kinds of rounds after which nobody of the view trains on: they are always saved."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """How a job saves itself.

    Attributes:
        path: folder on storage that all workers share.
        every_steps: optimizer steps between two checkpoints.
        keep: how many of the newest are kept.
        kind: ``consensus`` flushes first and saves the exact mean, with the ledger that belongs to
            it; ``member`` saves the replica of one member without asking anybody, so that samples
            of rounds that have not reached it yet count as done.
    """

    path: Path | str
    every_steps: int = 1000
    keep: int = 2
    kind: Literal["consensus", "member"] = "consensus"

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1 or self.kind not in ("consensus", "member"):
            raise UsageError(
                f"{self} cannot be: every_steps and keep are at least 1, kind is consensus "
                "or member"
            )


def checkpoint_of(
    given: "Checkpoint | Path | str | None", environ: Mapping[str, str]
) -> Checkpoint | None:
    """Return what the script says, else the pod's variables; None: nothing is saved.

    Raises:
        UsageError: a variable is no number, or out of range.
    """
    if isinstance(given, Checkpoint):
        return given
    path = given or environ.get(contract.ENV_CHECKPOINT_PATH)
    if not path:
        return None
    found = Checkpoint(path)
    return replace(
        found,
        every_steps=_number(environ, contract.ENV_CHECKPOINT_INTERVAL_STEPS, found.every_steps),
        keep=_number(environ, contract.ENV_CHECKPOINT_KEEP, found.keep),
    )


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit():
        raise UsageError(f"{name} is {text!r}: expected a whole number")
    return int(text)


@dataclass(frozen=True)
class Watch:
    """Who is told what a worker does: its launcher's metrics, and the view log."""

    measure: Measure
    journal: Journal


class Saver:
    """Saves and resumes one member.

    Args:
        link: the member's state and messages.
        payload: what is saved.
        settings: where and how often; None: never.
        every: optimizer steps of a round.
        watch: is told of saves.
    """

    def __init__(
        self,
        link: Link,
        payload: Payload,
        settings: Checkpoint | None,
        every: int,
        watch: Watch,
    ) -> None:
        self._link = link
        self._payload = payload
        self._settings = settings
        self._rounds = max(1, settings.every_steps // every) if settings is not None else 0
        self._measure = watch.measure
        self._journal = watch.journal
        self._due = False
        self._intervals: int | None = None
        """Times between two saves that had gone by at the last round here."""
        self._last_word = False
        """What is being written is the last that there will be."""
        self._ahead: tuple[m.Assign, Listing] | None = None
        """What a save after an attempt will copy."""
        self._memory: Memory | None = None
        self._thread: threading.Thread | None = None
        self._writes = False
        """Whether the thread is there to write, and not to touch memory."""
        self._written: tuple[float, float] | None = None
        """When the last write began and ended."""

    @property
    def resumes(self) -> bool:
        """Whether there is a place to look for checkpoints."""
        return self._settings is not None

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writes and self._thread is not None and self._thread.is_alive()

    def foresee(self, assign: m.Assign) -> None:
        """List what will be copied if this round is to be saved, while its sum is under way.

        Called by the training thread, where nothing trains.
        """
        settings = self._settings
        if settings is None or assign.first != self._link.setup.member or self.busy:
            return
        due = self._due or self._falls_due(assign.round)
        listed = self._ahead is not None and self._ahead[0] is assign
        if _is_saved(settings, assign, due) and not listed:
            started = time.monotonic()
            with suppress(ModelError):  # The save will say so.
                self._ahead = assign, list_ahead(self._payload)
                self._observe("list", time.monotonic() - started)

    def after(self, assign: m.Assign) -> None:
        """Look at a round that was applied; copy the state if it is to be saved.

        Called by the training thread, where nothing trains.
        """
        settings = self._settings
        if settings is None:
            return
        # It holds tensors, which may be given up for others.
        ahead, self._ahead = self._ahead, None
        self._observe_written()
        first = assign.first == self._link.setup.member
        self._count(assign.round)
        needs_flush = settings.kind == "consensus" and assign.kind == "train"
        # In this life: who enters again may have asked somebody who knows nothing of it any more.
        asked = self._link.state.history.flush_asked
        if self._due and first and needs_flush and not (asked or self.busy):
            self._link.send(m.AskFlush())
        if _is_saved(settings, assign, self._due):
            ends = assign.kind in ENDS
            # A writer that is busy keeps what is due; the others cannot know that it is.
            self._due = first and self.busy and not ends
            if first and not self._due:
                self._last_word = ends
                listing = ahead[1] if ahead is not None and ahead[0] is assign else None
                self._save(settings, assign, listing)
        if first and self._thread is None:
            self._prepare()

    def _count(self, number: int) -> None:
        """Note whether a save is due since the last round here; this one may be far beyond it."""
        self._due = self._due or self._falls_due(number)
        self._intervals = (number + 1) // self._rounds

    def _falls_due(self, number: int) -> bool:
        before = number // self._rounds if self._intervals is None else self._intervals
        return (number + 1) // self._rounds > before

    def close(self) -> None:
        """Wait for the checkpoint that is being written, unless others go on and save theirs.

        The last one is waited for however long the disk takes: there will be no other.
        """
        leaving = self._link.state.leaving
        if self._thread is not None and (self._last_word or not leaving):
            is_last = self._last_word and self._link.ended
            self._thread.join(None if is_last else ANSWER_SECONDS)
            self._observe_written()

    # --- saving -----------------------------------------------------------------------------

    def _save(self, settings: Checkpoint, assign: m.Assign, ahead: Listing | None) -> None:
        if self._thread is not None:
            self._thread.join()
        started = time.monotonic()
        try:
            snapshot = stage(self._payload, self._memory, ahead)
        except Exception as error:  # Also the script's own objects are asked for their state.
            _not_saved(assign, error)
            return
        self._memory = snapshot.memory
        self._observe("stage", time.monotonic() - started)
        if assign.kind == "train":
            self._link.send(m.AskLedger(assign.round))
        life = self._link.state.generation
        self._writes = True
        self._start(partial(self._run, settings, snapshot, assign, life))

    def _prepare(self) -> None:
        """Touch the memory of the first copy while the training goes on."""
        try:
            listing = list_all(self._payload)
        except Exception:
            return  # The save will say so.

        def touch() -> None:
            memory = listing.memory()
            memory.touch()
            self._memory = memory

        self._start(touch)

    def _start(self, what: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=what, daemon=True)
        self._thread.start()

    def _run(self, settings: Checkpoint, snapshot: Snapshot, assign: m.Assign, life: int) -> None:
        try:
            self._write(settings, snapshot, assign, life)
        except (OSError, DssyncError) as error:
            _not_saved(assign, error)

    def _write(self, settings: Checkpoint, snapshot: Snapshot, assign: m.Assign, life: int) -> None:
        started = time.monotonic()
        copy = self._ledger(assign, life)
        path = Path(settings.path)
        folder = path / f"{checkpoint.SAVING}{uuid.uuid4().hex}"
        saved = cast(dict[str, object], snapshot.state)
        try:
            checkpoint.write(folder, saved, copy.ledger, self._facts(assign, copy))
            # Where the job has ended nobody has to be asked, and soon nobody is left to answer.
            if assign.kind != "final" and self._term(assign.round) != copy.term:
                raise CheckpointError(f"term {copy.term} ended while it was written")
            target = checkpoint.publish(folder, path)
        except (OSError, DssyncError):
            # On a full disk what is left of this one would keep every later one from fitting.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._written = started, time.monotonic()
        self._journal.saved(assign.round, target)
        tell(f"checkpoint {target} holds round {assign.round}")
        checkpoint.remove_old(path, settings.keep)

    def _ledger(self, assign: m.Assign, life: int) -> m.LedgerCopy:
        """Return the ledger of a round; of the last one once its end is recorded for good.

        Raises:
            CheckpointError: others went on without this round.
        """
        state = self._link.state

        def copy() -> m.LedgerCopy | None:
            return state.ledger if state.ledger and state.ledger.round == assign.round else None

        if assign.kind == "final":
            self._await_end(life)
            if copy() is None:
                # Whoever coordinates now has ended the job in place of another.
                self._link.send(m.AskLedger(assign.round))
        return self._await(copy)

    def _await_end(self, life: int) -> None:
        """Wait until nobody can train on instead of what the final flush has left.

        Raises:
            CheckpointError: somebody does, or may.
        """
        state = self._link.state

        def told() -> bool:
            return state.completed is not None

        def over() -> bool | None:
            return told() or state.benched is not None or state.generation != life or None

        self._await(over, END_SECONDS)
        if not told() or state.generation != life:
            raise CheckpointError("the job went on without its final flush")

    def _facts(self, assign: m.Assign, copy: m.LedgerCopy) -> checkpoint.Facts:
        setup = self._link.setup
        return checkpoint.Facts(
            kind="member" if assign.kind == "train" else "consensus",
            term=copy.term,
            round=assign.round,
            seed=setup.seed,
            mode=setup.mode,
            world_size=assign.world_size,
            view=assign.view,
            views=[asdict(each) for each in copy.views],
            optimizer=sameness.groups_of(self._payload),
            data=() if self._payload.data is None else self._payload.data.loaders,
        )

    def _term(self, number: int) -> int:
        """Return the term of the coordinator, which leads at this moment, as the arbiter says."""
        state = self._link.state
        with self._link.condition:
            state.may_publish = None
        self._link.send(m.AskPublish(number))
        # One that answers a former question may still come.
        return self._await(
            lambda: leave if (leave := state.may_publish) and leave.round == number else None
        ).term

    def _await(self, answer: Callable[[], _T | None], seconds: float = ANSWER_SECONDS) -> _T:
        with self._link.condition:
            found = self._link.condition.wait_for(answer, seconds)
        if found is None:
            raise TransferError("the coordinator has not answered")
        return found

    def _observe(self, phase: str, seconds: float) -> None:
        self._measure.observe("dssync_checkpoint_duration_seconds", seconds, phase=phase)

    def _observe_written(self) -> None:
        """Record the last write; the training thread alone feeds the measure."""
        if self._written is not None:
            (began, ended), self._written = self._written, None
            self._observe("write", ended - began)
            since = time.monotonic() - ended
            self._measure.set("dssync_last_checkpoint_timestamp_seconds", time.time() - since)

    # --- resuming ---------------------------------------------------------------------------

    def resume(self) -> checkpoint.Loaded | None:
        """Load the newest whole checkpoint and return it; None if there is none."""
        if self._settings is None:
            return None
        for loaded in checkpoint.newest(Path(self._settings.path), _refuse):
            try:
                sameness.check_run(loaded, self._payload.data, self._link.setup.seed)
                take_over(loaded, self._payload)
            except CheckpointError as error:
                _refuse(error)
                continue
            tell(f"resumed from {loaded.folder}")
            return loaded
        return None


def _is_saved(settings: Checkpoint, assign: m.Assign, due: bool) -> bool:
    """Tell whether a state is saved after a round, if a save is due and the writer is free."""
    flushed = assign.kind != "train"
    return assign.kind in ENDS or (due and flushed == (settings.kind == "consensus"))


def _not_saved(assign: m.Assign, error: Exception) -> None:
    """Tell of a save that failed. The training is worth more; the next one may fare better."""
    tell(f"the checkpoint of round {assign.round} was not saved: {error}")


def _refuse(error: CheckpointError) -> None:
    tell(f"refused: {error}")
