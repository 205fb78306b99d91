"""Which pods a local job should have, decided without processes, files or clocks.

The same level-triggered idea as in the operator: every event ends with a comparison of the pods
that are there with the pods that are wanted. A slot is held until its pod has ended, and the
lowest free slot is filled first, so that a lost pod is replaced in its own slot.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from dssync.local.failures import Ended, Incidents, Meaning, judge
from dssync.local.manifest import Manifest

LINGER_SECONDS: Final = 15.0
"""How long pods of a completed job may finish transfers before they are told to go."""


class Result(Enum):
    """How a job ended."""

    COMPLETE = "Complete"
    FAILED = "Failed"
    DRAINED = "Drained"


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and why."""

    result: Result
    reason: str


@dataclass(frozen=True)
class Started:
    """The job begins."""


@dataclass(frozen=True)
class Scaled:
    """So many pods are wanted from now on."""

    desired: int


@dataclass(frozen=True)
class Halted:
    """The job is to end now: because somebody asked (DRAINED) or because it failed."""

    outcome: Outcome


Event = Started | Scaled | Halted | Ended


@dataclass(frozen=True)
class Start:
    """Start a pod in a slot."""

    slot: int


@dataclass(frozen=True)
class Stop:
    """Ask the pod in a slot to drain, unless it has ended by then."""

    slot: int
    after_seconds: float = 0.0


@dataclass(frozen=True)
class Resize:
    """Write into the arbiter's record how many pods are wanted."""

    desired: int


@dataclass(frozen=True)
class Say:
    """Tell the user."""

    text: str


Effect = Start | Stop | Resize | Say


class JobState:
    """The pods of a job by slot, and what is to become of them."""

    def __init__(self, manifest: Manifest) -> None:
        self.outcome: Outcome | None = None
        self._desired = manifest.replicas
        self._slots = range(manifest.max_replicas)
        self._policy = manifest.failure_policy
        self._incidents = Incidents(manifest.failure_policy)
        self._stopping: dict[int, bool] = {}

    @property
    def over(self) -> bool:
        """Whether the outcome is known and no pod is left."""
        return self.outcome is not None and not self._stopping

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; return what to do, in this order.

        Args:
            event: What happened.
            now: Seconds on a clock that never goes back.
        """
        match event:
            case Ended():
                effects = self._ended(event, now)
            case Scaled(desired) if desired != self._desired and self.outcome is None:
                effects = [Say(f"scale from {self._desired} to {desired} pods"), Resize(desired)]
                self._desired = desired
            case Halted(outcome) if self.outcome is None:
                effects = self._end(outcome)
            case _:
                effects = []
        return effects if self.outcome else effects + self._settle()

    def _settle(self) -> list[Effect]:
        """Start what is missing, stop what is too much."""
        staying = sorted(slot for slot, stopping in self._stopping.items() if not stopping)
        free = [slot for slot in self._slots if slot not in self._stopping]
        missing = free[: max(0, self._desired - len(staying))]
        self._stopping.update(dict.fromkeys(missing, False))
        return [
            *(Start(slot) for slot in missing),
            *(self._stop(slot) for slot in staying[self._desired :]),
        ]

    def _stop(self, slot: int, after_seconds: float = 0.0) -> Stop:
        self._stopping[slot] = True
        return Stop(slot, after_seconds)

    def _end(self, outcome: Outcome) -> list[Effect]:
        self.outcome = outcome
        linger = LINGER_SECONDS if outcome.result is Result.COMPLETE else 0.0
        stops = [self._stop(slot, linger) for slot, asked in self._stopping.items() if not asked]
        return [Say(f"{outcome.result.value}: {outcome.reason}"), *stops]

    def _ended(self, ended: Ended, now: float) -> list[Effect]:
        asked = self._stopping.pop(ended.slot)
        said = Say(f"pod {ended.slot} ended ({ended})")
        meaning = judge(ended, self._policy)
        if meaning is Meaning.DONE:
            return [said, *self._completed(ended)]
        if self.outcome is not None or asked or meaning is Meaning.PLANNED:
            return [said]
        reason = f"pod {ended.slot} ended ({ended})"
        if meaning is Meaning.FAILED:
            reason = self._incidents.add(ended.slot, now)
        return [said, *(self._end(Outcome(Result.FAILED, reason)) if reason else ())]

    def _completed(self, ended: Ended) -> list[Effect]:
        """A job that was completed while it drained is complete; a failed one stays failed."""
        if self.outcome is None or self.outcome.result is Result.DRAINED:
            how = "the record says so" if ended.completed else f"pod {ended.slot} is done"
            return self._end(Outcome(Result.COMPLETE, how))
        return []
