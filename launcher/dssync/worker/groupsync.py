"""What a training script touches: ``GroupSync``.

The script's own loop stays; ``run`` hands out batches, ``step`` counts optimizer steps and runs a
round when one is due. Joining happens on the first of these calls, not in the constructor, so
that everything the script registers or loads before is part of the state that joiners get.
"""

import atexit
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import torch
from torch.utils.data import default_collate

from dssync.agent import workermain
from dssync.control import messages as m
from dssync.errors import UsageError
from dssync.worker.buckets import averaged
from dssync.worker.data import Batches, Samples, Shard, size_of
from dssync.worker.feed import Feed
from dssync.worker.link import open_link
from dssync.worker.options import SyncOptions
from dssync.worker.outcome import Outcome
from dssync.worker.payload import Payload, Stateful
from dssync.worker.replay import ReplaySession
from dssync.worker.saver import Checkpoint, checkpoint_of
from dssync.worker.session import MemberSession

STEPLESS_BATCHES = 1000
"""Batches without a single ``step`` after which the call was forgotten and not just rare."""

_Batch = TypeVar("_Batch")


class GroupSync(AbstractContextManager["GroupSync"]):
    """Averages a model with a small group of workers, a different one each round.

    Under ``dssync run`` the workers of the job train together; under plain ``python`` the same
    script trains alone.

    Args:
        model: the bare module; its trained parameters and floating-point buffers are averaged,
            but for buffers that hold an infinity (masks). What is put in their place while it
            trains is averaged too, and has to be alike.
        optimizer: its state goes to joiners; it stays local and is averaged at a flush, unless the
            launcher was told ``--average-optimizer-state 1``.
        every: optimizer steps between two rounds.
        group_size: members of a group, at least 2.
        mode: schedule of groups: ``grid``, ``pool``, ``cross`` or ``allreduce``.
        checkpoint: where the job saves itself, and is resumed from when nobody holds its state.

    What is left out comes from the launcher's flags; all members must agree.

    Raises:
        ModelError: the model cannot be averaged.
        UsageError: an argument is out of range, or this worker has a ``GroupSync`` already.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int | None = None,
        group_size: int | None = None,
        mode: str | None = None,
        checkpoint: Checkpoint | Path | str | None = None,
    ) -> None:
        averaged(model)
        link = open_link(os.environ)
        options = SyncOptions.of(link.setup, every, group_size, mode)
        self._payload = Payload(model, optimizer)
        saves = checkpoint_of(checkpoint, os.environ)
        self._session: MemberSession | ReplaySession = (
            ReplaySession(link, options, self._payload)
            if link.setup.replay
            else MemberSession(link, options, self._payload, saves)
        )
        self._feed: Feed | None = None
        self._called_step = False
        self._finished = False
        """A run has gone on to the end of the job."""
        atexit.register(self._session.close)
        if link.setup.host:
            workermain.at_end.append(self._check_joined)

    # --- the training loop ------------------------------------------------------------------

    def batches(self, dataset: Sized, batch_size: int, shuffle: bool = True) -> Batches:
        """Return a batch sampler that shares ``dataset`` out among the members.

        Raises:
            UsageError: the data set has no length, or ``batch_size`` is below 1.
        """
        return self._batches(size_of(dataset), batch_size, shuffle)

    def sampler(self, dataset: Sized, shuffle: bool = True) -> Samples:
        """Return a sampler for ``DataLoader(dataset, batch_size=…, sampler=…)``.

        Raises:
            UsageError: the data set has no length.
        """
        size = size_of(dataset)
        return Samples(lambda batch_size: self._batches(size, batch_size, shuffle), size)

    def shard(
        self,
        data: Iterable[Any],
        batch_size: int,
        samples: int | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> Shard:
        """Return the batches of an iterable that fall to this member, to pass to ``run``.

        Args:
            data: gives the same samples in each pass and in every worker; each member goes
                through all of them.
            batch_size: samples of a batch.
            samples: how many there are; without it they are counted in a pass of their own.
            collate: makes a batch of a list of samples.

        Raises:
            UsageError: there are no samples, or ``batch_size`` is below 1.
        """
        size = sum(1 for _ in data) if samples is None else samples
        return Shard(self._batches(size, batch_size, shuffle=False), data, collate)

    def _batches(self, size: int, batch_size: int, shuffle: bool) -> Batches:
        session = self._session
        return Batches(session.link, session.draw, size, batch_size, shuffle)

    @overload
    def run(
        self, loader: Mapping[str, Iterable[Any]], epochs: int = 1
    ) -> Iterator[dict[str, Any]]: ...
    @overload
    def run(self, loader: Iterable[_Batch], epochs: int = 1) -> Iterator[_Batch]: ...
    def run(self, loader: Any, epochs: int = 1) -> Iterator[Any]:
        """Yield this member's batches until the job has seen every sample ``epochs`` times.

        Several loaders by name give one dictionary at a time, with a batch of each that has any.
        Ends early when this member drains. After it ends with the job, the model holds the exact
        mean of all members.

        Raises:
            UsageError: a loader does not draw from this object's ``batches``, ``sampler`` or
                ``shard``, ``step`` is never called, or an earlier ``run`` has ended with the job.
        """
        session = self._session
        if self._finished and not session.link.state.leaving:
            raise UsageError("run() came after the end: the job is done; pass epochs to one run()")
        feed = self._feed = Feed(session.link, loader, epochs)
        self._payload.data = feed.data
        session.join()
        session.link.send(m.Register(feed.tracks, epochs))
        try:
            while not session.over:
                for batch in feed:
                    self._check_step_was_called(STEPLESS_BATCHES)
                    yield batch
                    if session.over:
                        break
                self._check_step_was_called(1)
                # Batches that no step followed were still trained on, as far as they ever are.
                self._consume()
                while not session.over and not session.has_leases:
                    session.sync(idle=True)
        finally:
            # Also when the script leaves the loop: nobody should wait for this member.
            session.leave("leave")
        self._finished = session.link.state.completed is not None

    def step(self) -> None:
        """Count an optimizer step; run a round if one is due. Call it after ``optimizer.step()``.

        Raises:
            ModelError: the model differs from that of the other members, or its values are NaN
                or Inf again and again.
        """
        self._called_step = True
        self._session.join()
        self._consume()
        self._session.steps += 1
        self._session.do_chores()
        if self._session.steps % self._session.options.every == 0:
            self._session.sync(idle=False)

    def flush(self) -> None:
        """Bring all members to their exact mean, at the next round that the coordinator appoints.

        Every member keeps calling ``step`` (or is inside ``run``) meanwhile.
        """
        self._session.join()
        self._session.link.send(m.AskFlush())

    def stop(self) -> None:
        """End training early, for everybody."""
        self._session.join()
        self._session.link.send(m.AskStop())

    @contextmanager
    def away(self) -> Iterator[None]:
        """Leave the view for a while, so that nobody waits for this member: evaluation, saving.

        It comes back as a joiner does, with the state of a mate. Call it right after ``step``:
        what was trained on since the last round goes to others.
        """
        session = self._session
        session.join()
        session.leave("away")
        try:
            yield
        finally:
            session.join()

    def register(self, name: str, stateful: Stateful) -> None:
        """Send the state of ``stateful`` (a scheduler, scaler or averaged model) to joiners too.

        Raises:
            UsageError: the name is taken, or the member has joined already.
        """
        if self._session.joined:
            raise UsageError(f"register({name!r}) came after training began: call it before run()")
        if self._session.link.setup.host and _counts_steps(stateful):
            warnings.warn(
                f"register({name!r}): {type(stateful).__name__} counts this worker's own steps, "
                "which drift apart when members come and go; compute the rate from sync.progress",
                stacklevel=2,
            )
        self._payload.register(name, stateful)

    def on_round(self, listener: Callable[[Outcome], None]) -> None:
        """Call ``listener`` in the training thread after each round, idle ones included."""
        self._session.listeners.append(listener)

    def close(self) -> None:
        """Leave the job; transfers to joiners under way are finished first.

        Raises:
            UsageError: this worker has taken no part in its job.
        """
        self._give_back()
        if sys.exc_info()[0] is None:
            self._check_joined()

    # --- what a script may ask --------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Committed fraction of the run, over all members; drives schedules of the rate."""
        return self._session.link.state.progress

    @property
    def world_size(self) -> int:
        """Members of the view of the latest round."""
        return self._session.world_size

    @property
    def is_first(self) -> bool:
        """Whether this member speaks for the job: writes results, logs.

        Nobody does before the first round, and no member that leaves before the end of the job:
        ask after ``run``, or in its loop.
        """
        return self._session.is_first

    @property
    def member(self) -> str:
        """Key of this member."""
        return self._session.link.setup.member

    @property
    def last_round(self) -> Outcome | None:
        """What the latest round did at this member."""
        return self._session.last

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the job, also when the loop ended in an exception or an interrupt."""
        self._give_back()
        if exc_type is None:
            self._check_joined()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def _give_back(self) -> None:
        atexit.unregister(self._session.close)
        self._session.close()

    def _check_joined(self) -> None:
        """See that a worker has trained with its job, unless that was over or did not want it."""
        link = self._session.link
        if link.setup.host and not (self._session.joined or link.state.over):
            raise UsageError(
                "this worker made a GroupSync and took no part in its job: loop over "
                "sync.run(loader), and call sync.step() after optimizer.step()"
            )

    def _consume(self) -> None:
        if self._feed is not None:
            self._session.consumed += self._feed.handed_out
            self._feed.handed_out.clear()

    def _check_step_was_called(self, limit: int) -> None:
        handed_out = len(self._feed.handed_out) if self._feed is not None else 0
        if not self._called_step and handed_out >= limit:
            raise UsageError(
                f"run() handed out {handed_out} batches and sync.step() was never "
                "called: call it after optimizer.step()"
            )


def _counts_steps(stateful: object) -> bool:
    """Tell whether it is a scheduler whose rate follows the number of its own steps."""
    schedulers = torch.optim.lr_scheduler
    return isinstance(stateful, schedulers.LRScheduler) and not isinstance(
        stateful, schedulers.ReduceLROnPlateau
    )
