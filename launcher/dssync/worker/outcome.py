"""What a round did at one member, for scripts that watch and for the launcher's metrics."""

from dataclasses import dataclass

from dssync.control import messages as m
from dssync.worker.measure import Measure
from dssync.worker.round import Clock


@dataclass(frozen=True)
class Outcome:
    """A round at this member."""

    round: int
    attempts: int
    """0 if the first attempt was committed."""
    result: str
    """``committed``, ``solo`` (nobody to average with) or ``skipped``."""
    members: tuple[str, ...]
    """Who averaged with this member in the last stage, itself included."""
    cause: str
    """Why there were further attempts: ``exit``, ``eof``, ``deadline`` …; empty without one."""
    kind: str
    """``train``, ``flush`` or ``final``; empty if it was skipped."""
    view: int
    """Sequence of the view that the round was frozen on."""
    seconds: float
    """Wall time of the round."""

    @classmethod
    def skipped(cls, number: int, seconds: float) -> "Outcome":
        """Return the outcome of a round that went on without this member."""
        return cls(number, 0, "skipped", (), "", "", 0, seconds)

    @classmethod
    def of(cls, assign: m.Assign, result: str, own: str, seconds: float) -> "Outcome":
        """Return the outcome of a round whose attempt ``assign`` was applied."""
        members = assign.stages[-1].members if assign.stages else (own,)
        return cls(
            round=assign.round,
            attempts=assign.attempt,
            result=result,
            members=members,
            cause=assign.cause,
            kind=assign.kind,
            view=assign.view,
            seconds=seconds,
        )


def record(measure: Measure, outcome: Outcome, clock: Clock, size_bytes: int) -> None:
    """Feed the series of rounds.

    Args:
        measure: of this worker.
        outcome: what happened.
        clock: the phases of the attempt that was applied.
        size_bytes: what a committed round averages.
    """
    committed = outcome.result == "committed"
    retried = committed and outcome.attempts > 0
    measure.increment("dssync_sync_rounds_total", result="retried" if retried else outcome.result)
    measure.observe("dssync_sync_duration_seconds", outcome.seconds)
    measure.set("dssync_round", outcome.round)
    measure.set("dssync_group_size", max(1, len(outcome.members)))
    if committed:
        measure.increment("dssync_sync_bytes_total", size_bytes)
        for phase, seconds in vars(clock).items():
            measure.observe("dssync_sync_phase_duration_seconds", seconds, phase=phase)
