"""What a training script touches: ``GroupSync``.

The script's own loop stays; ``run`` hands out batches, ``step`` counts optimizer steps and runs a
round when one is due. Joining happens on the first of these calls, not in the constructor, so
that everything the script registers or loads before is part of the state that joiners get.
"""

import atexit
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, TypeVar

import torch

from dssync.control import messages as m
from dssync.errors import UsageError
from dssync.worker.buckets import averaged
from dssync.worker.data import Batches, check_loader, size_of
from dssync.worker.link import open_link
from dssync.worker.options import SyncOptions
from dssync.worker.outcome import Outcome
from dssync.worker.payload import Payload, Stateful
from dssync.worker.session import MemberSession

STEPLESS_BATCHES = 1000
"""Batches without a single ``step`` after which the call was forgotten and not just rare."""

_Batch = TypeVar("_Batch")


class GroupSync(AbstractContextManager["GroupSync"]):
    """Averages a model with a small group of workers, a different one each round.

    Under ``dssync run`` the workers of the job train together; under plain ``python`` the same
    script trains alone.

    Args:
        model: the bare module; its trained parameters and floating-point buffers are averaged.
        optimizer: its state stays local and goes to joiners.
        every: optimizer steps between two rounds.
        group_size: members of a group, at least 2.
        mode: schedule of groups: ``grid``, ``pool``, ``cross`` or ``allreduce``.

    What is left out comes from the launcher's flags; all members must agree.

    Raises:
        ModelError: the model cannot be averaged.
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int | None = None,
        group_size: int | None = None,
        mode: str | None = None,
    ) -> None:
        averaged(model)
        link = open_link(dict(os.environ))
        options = SyncOptions.of(link.setup, every, group_size, mode)
        self._payload = Payload(model, optimizer)
        self._session = MemberSession(link, options, self._payload)
        self._steps = 0
        self._handed_out: list[tuple[int, int]] = []
        self._called_step = False
        atexit.register(self.close)

    # --- the training loop ------------------------------------------------------------------

    def batches(self, dataset: Sized, batch_size: int, shuffle: bool = True) -> Batches:
        """Return a batch sampler that shares ``dataset`` out among the members.

        Raises:
            UsageError: the data set has no length, or ``batch_size`` is below 1.
        """
        link = self._session.link
        return Batches(link, self._session.wait_for_data, size_of(dataset), batch_size, shuffle)

    def run(self, loader: Iterable[_Batch], epochs: int = 1) -> Iterator[_Batch]:
        """Yield this member's batches until the job has seen every sample ``epochs`` times.

        Ends early when this member drains. After it ends with the job, the model holds the exact
        mean of all members.

        Raises:
            UsageError: the loader does not draw from ``batches``, or ``step`` is never called.
        """
        sampler = check_loader(loader)
        if epochs < 1:
            raise UsageError(f"run() got epochs={epochs}: at least 1")
        session = self._session
        session.join()
        session.link.send(m.Register((m.Track("", len(sampler)),), epochs))
        try:
            while not session.over:
                yield from self._drain_loader(loader, sampler)
                self._check_step_was_called(1)
                # Batches that no step followed were still trained on, as far as they ever are.
                self._consume()
                while not session.over and not session.has_leases:
                    session.sync(idle=True)
        finally:
            # Also when the script leaves the loop: nobody should wait for this member.
            session.leave("leave")

    def step(self) -> None:
        """Count an optimizer step; run a round if one is due. Call it after ``optimizer.step()``.

        Raises:
            ModelError: the model differs from that of the other members, or its values are NaN
                or Inf again and again.
        """
        self._called_step = True
        self._session.join()
        self._consume()
        self._steps += 1
        self._session.do_chores()
        if self._steps % self._session.options.every == 0:
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
        """Leave the job; transfers to joiners under way are finished first."""
        atexit.unregister(self.close)
        self._session.close()

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
        """Whether this member speaks for the job: writes results, logs."""
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
        self.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def _drain_loader(self, loader: Iterable[_Batch], sampler: Batches) -> Iterator[_Batch]:
        sampler.drawn.clear()
        for batch in loader:
            self._handed_out.append(sampler.drawn.popleft())
            self._check_step_was_called(STEPLESS_BATCHES)
            yield batch
            if self._session.over:
                return

    def _consume(self) -> None:
        self._session.consumed += self._handed_out
        self._handed_out.clear()

    def _check_step_was_called(self, limit: int) -> None:
        if not self._called_step and len(self._handed_out) >= limit:
            raise UsageError(
                f"run() handed out {len(self._handed_out)} batches and sync.step() was never "
                "called: call it after optimizer.step()"
            )


def _counts_steps(stateful: object) -> bool:
    """Tell whether it is a scheduler whose rate follows the number of its own steps."""
    schedulers = torch.optim.lr_scheduler
    return isinstance(stateful, schedulers.LRScheduler) and not isinstance(
        stateful, schedulers.ReduceLROnPlateau
    )
