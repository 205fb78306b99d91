"""Which pods a local job should have, decided without processes, files or clocks.

The same level-triggered idea as in the operator: every event ends with a comparison of the pods
that are there with the pods that are wanted. A slot is held until its pod has ended, and the
lowest free slot is filled first, so that a lost pod is replaced in its own slot.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from dssync.local.failures import Ended, Incidents, Meaning, earliest, judge
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


@dataclass(frozen=True)
class Formed:
    """The launchers have formed a world."""


@dataclass(frozen=True)
class Looked:
    """Time went by: a slot that had to wait may be filled now."""


Event = Started | Formed | Scaled | Halted | Looked | Ended


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


@dataclass(frozen=True)
class LookAgain:
    """Send ``Looked`` after so many seconds."""

    after_seconds: float


Effect = Start | Stop | Resize | LookAgain | Say


class JobState:
    """The pods of a job by slot, and what is to become of them."""

    def __init__(self, manifest: Manifest) -> None:
        self.outcome: Outcome | None = None
        self._desired = manifest.replicas
        self._slots = range(manifest.max_replicas)
        self._policy = manifest.failure_policy
        self._incidents = Incidents(manifest.failure_policy)
        self._any = manifest.success_policy == "Any"
        self._minimum = manifest.min_replicas
        self._patience = manifest.below_min_timeout_seconds
        self._formed = False
        self._startup = manifest.startup_deadline_seconds
        self._began = 0.0
        self._below_since: float | None = None
        self._stopping: dict[int, bool] = {}
        self._done: set[int] = set()
        """Slots whose pod said that all is done; they are not filled again."""
        self._started: dict[int, float] = {}
        self._not_before: dict[int, float] = {}

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
            case Started():
                self._began, effects = now, []
            case Ended():
                effects = self._ended(event, now)
            case Scaled(desired) if desired != self._desired and self.outcome is None:
                effects = [Say(f"scale from {self._desired} to {desired} pods"), Resize(desired)]
                self._desired = desired
            case Halted(outcome) if self.outcome is None:
                effects = self._end(outcome)
            case _:
                self._formed = self._formed or event == Formed()
                effects = []
        if not self.outcome:
            effects += self._settle(now)
            effects += self._wait_for_world(now)
        if not self.outcome:
            effects += self._wait_for_minimum(now)
        return effects

    def _settle(self, now: float) -> list[Effect]:
        """Start what is missing and may be started, stop what is too much."""
        staying = sorted(slot for slot, stopping in self._stopping.items() if not stopping)
        wanted = max(0, self._desired - len(self._done))
        free = [s for s in self._slots if s not in self._stopping and s not in self._done]
        missing = free[: max(0, wanted - len(staying))]
        ready = [slot for slot in missing if self._not_before.get(slot, now) <= now]
        waits = [self._not_before[slot] - now for slot in missing if slot not in ready]
        self._stopping.update(dict.fromkeys(ready, False))
        self._started.update(dict.fromkeys(ready, now))
        return [
            *(Start(slot) for slot in ready),
            *(self._stop(slot) for slot in staying[wanted:]),
            *([LookAgain(min(waits))] if waits else []),
        ]

    def _wait_for_world(self, now: float) -> list[Effect]:
        """Give a job up whose first world does not form."""
        if self._formed or self._startup is None:
            return []
        left = self._began + self._startup - now
        if left > 0:
            return [LookAgain(left)]
        reason = f"no world formed within startupDeadlineSeconds {self._startup:g}"
        return self._end(Outcome(Result.FAILED, reason))

    def _wait_for_minimum(self, now: float) -> list[Effect]:
        """Give a world up that has stood still for too long, as fewer pods run than it needs."""
        staying = sum(not stopping for stopping in self._stopping.values())
        if not self._formed or staying + len(self._done) >= self._minimum:
            self._below_since = None
        elif self._below_since is None:
            self._below_since = now
        if self._below_since is None or self._patience is None:
            return []
        left = self._below_since + self._patience - now
        if left > 0:
            return [LookAgain(left)]
        reason = (
            f"fewer than elastic.minReplicas {self._minimum} pods ran for "
            f"elastic.belowMinTimeoutSeconds {self._patience:g}"
        )
        return self._end(Outcome(Result.FAILED, reason))

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
        if self.outcome is not None or asked:
            return [said]
        reason, planned = "", meaning is Meaning.PLANNED
        if meaning is Meaning.FAILED:
            reason = self._incidents.add(ended.slot, now)
        elif not planned:
            reason = f"pod {ended.slot} ended ({ended})"
        if reason:
            return [said, *self._end(Outcome(Result.FAILED, reason))]
        failures, started = self._incidents.of_slot(ended.slot), self._started[ended.slot]
        self._not_before[ended.slot] = earliest(failures, planned, started)
        return [said]

    def _completed(self, ended: Ended) -> list[Effect]:
        """A job that was completed while it drained is complete; a failed one stays failed."""
        if self.outcome is not None and self.outcome.result is not Result.DRAINED:
            return []
        self._done.add(ended.slot)
        if ended.completed:
            return self._end(Outcome(Result.COMPLETE, "the record says so"))
        if self._any:
            return self._end(Outcome(Result.COMPLETE, f"pod {ended.slot} is done"))
        if len(self._done) >= self._desired and not self._stopping:
            return self._end(Outcome(Result.COMPLETE, f"all {len(self._done)} pods are done"))
        return []
