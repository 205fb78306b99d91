"""What the end of a pod means for its job: the same rules as on a cluster. Pure."""

import signal
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dssync import contract
from dssync.local.manifest import FailurePolicy
from dssync.local.pod import CANNOT_RUN

INCIDENT_SECONDS: Final = 10.0
"""Failures of different slots this close together have one cause and are one incident."""


@dataclass(frozen=True)
class Ended:
    """How a pod ended.

    Attributes:
        slot: Its slot.
        returncode: Exit code, or the signal that killed it as a negative number.
        verdict: What its launcher said, one of ``contract.VERDICT_*``; empty when it said nothing.
        reason: Why, in the launcher's words.
        completed: Whether the arbiter's record says that the job is completed.
    """

    slot: int
    returncode: int
    verdict: str = ""
    reason: str = ""
    completed: bool = False

    def __str__(self) -> str:
        if self.verdict:
            return f"{self.verdict}: {self.reason}" if self.reason else self.verdict
        if self.returncode < 0:
            return f"killed by {signal.Signals(-self.returncode).name}"
        if self.returncode == 0:
            return "code 0 without a verdict; is its command 'dssync run ...'?"
        return f"code {self.returncode}"


class Meaning(Enum):
    """What an ended pod means for its job."""

    DONE = "done"
    PLANNED = "planned"
    FAILED = "failed"
    FATAL = "fatal"


def judge(ended: Ended, policy: FailurePolicy) -> Meaning:
    """Decide what an ended pod means: the launcher's verdict first, then rules, then the code."""
    if ended.completed or ended.verdict == contract.VERDICT_DONE:
        return Meaning.DONE
    if ended.verdict in (contract.VERDICT_DRAINED, contract.VERDICT_FENCED):
        return Meaning.PLANNED
    if ended.verdict == contract.VERDICT_DO_NOT_RESTART or _never_again(ended):
        return Meaning.FATAL
    code = exit_code(ended.returncode)
    for rule in policy.rules:
        if (code in rule.codes) != rule.negated:
            return _BY_ACTION[rule.action]
    return Meaning.FAILED


_BY_ACTION: Final = {
    "FailJob": Meaning.FATAL,
    "Ignore": Meaning.PLANNED,
    "ReplaceWorker": Meaning.FAILED,
    "RestartWorker": Meaning.FAILED,  # its launcher's restarts are used up
}


def exit_code(returncode: int) -> int:
    """Return the code that a container runtime would report."""
    return returncode if returncode >= 0 else contract.EXIT_SIGNAL_BASE - returncode


def _never_again(ended: Ended) -> bool:
    """Nothing was said, but a new pod would end the same way."""
    return not ended.verdict and ended.returncode in (contract.EXIT_DO_NOT_RESTART, CANNOT_RUN)


FIRST_DELAY_SECONDS: Final = 10.0
MAX_DELAY_SECONDS: Final = 300.0


def earliest(failures: tuple[float, ...], planned: bool, started: float) -> float:
    """Return when a slot may be filled again: as on a cluster, in seconds of the same clock.

    The first failure is replaced at once, each further one within the window doubles the wait. A
    pod that ended without fault and without being asked to is not replaced sooner than ten
    seconds after its start, or a script that leaves at once would keep the machine busy.

    Args:
        failures: of the slot, within the window.
        planned: the last pod of the slot ended without fault.
        started: when that one was started.
    """
    wait = started + FIRST_DELAY_SECONDS if planned else 0.0
    if len(failures) > 1:
        delay = FIRST_DELAY_SECONDS * 2.0 ** min(len(failures) - 2, 10)
        wait = max(wait, max(failures) + min(delay, MAX_DELAY_SECONDS))
    return wait


@dataclass
class _Incident:
    began: float
    slots: set[int]


@dataclass
class Incidents:
    """Failures within the window, those close together as one."""

    policy: FailurePolicy
    _incidents: list[_Incident] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._incidents)

    def add(self, slot: int, now: float) -> str:
        """Count a failure.

        Args:
            slot: Slot of the failed pod.
            now: Seconds on a clock that never goes back.

        Returns:
            The sentence that ends the job when a limit is exceeded, else nothing.
        """
        oldest = now - self.policy.window_seconds
        self._incidents = [each for each in self._incidents if each.began > oldest]
        self._join(slot, now)
        return self._exceeded(slot)

    def of_slot(self, slot: int) -> tuple[float, ...]:
        """Return when a slot failed, as far as it counts."""
        return tuple(each.began for each in self._incidents if slot in each.slots)

    def _join(self, slot: int, now: float) -> None:
        for incident in self._incidents:
            # A slot that fails twice within seconds is a crash loop, not one incident.
            if now - incident.began < INCIDENT_SECONDS and slot not in incident.slots:
                incident.slots.add(slot)
                return
        self._incidents.append(_Incident(now, {slot}))

    def _exceeded(self, slot: int) -> str:
        limit, per_slot = self.policy.backoff_limit, self.policy.backoff_limit_per_slot
        window = f"within {self.policy.window_seconds:g} s"
        if len(self) > limit:
            return f"{len(self)} failures {window} exceed failurePolicy.backoffLimit {limit}"
        of_slot = len(self.of_slot(slot))
        if per_slot is not None and of_slot > per_slot:
            return (
                f"slot {slot} failed {of_slot} times {window}, more than "
                f"failurePolicy.backoffLimitPerIndex {per_slot}"
            )
        return ""
