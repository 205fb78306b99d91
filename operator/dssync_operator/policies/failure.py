"""How a pod ended, what that counts for, and when its slot may be filled again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from dssync import contract
from dssync_operator.job import FailurePolicy, Rule
from dssync_operator.pod import Ended, Pod
from dssync_operator.policies.nodes import STUCK_SECONDS
from dssync_operator.status import Incident, Tally

INCIDENT_SECONDS: Final = 10.0
"""Failures this close together have one cause, as when a bug or a switch hits everybody."""
FIRST_DELAY_SECONDS: Final = 10.0
MAX_DELAY_SECONDS: Final = 300.0


class Outcome(Enum):
    """What an ended pod means for its job."""

    DONE = "done"
    PLANNED = "planned"
    FAILED = "failed"
    FATAL = "fatal"


@dataclass(frozen=True)
class Judgement:
    """The outcome of one ended pod, and why."""

    outcome: Outcome
    reason: str
    elsewhere: bool = False
    """Whether the replacement must avoid the node."""


def judge(pod: Pod, ended: Ended, rules: Iterable[Rule]) -> Judgement:
    """Decide what an ended pod means: the launcher's verdict first, then rules, then the code.

    The code of a pod that somebody has asked to go tells how it was ended, not that it failed.
    """
    if ended.verdict == contract.VERDICT_DONE:
        return Judgement(Outcome.DONE, ended.verdict)
    if ended.verdict in (contract.VERDICT_DRAINED, contract.VERDICT_FENCED):
        return Judgement(Outcome.PLANNED, ended.verdict)
    if ended.verdict == contract.VERDICT_DO_NOT_RESTART or _says_stop(ended):
        return Judgement(Outcome.FATAL, contract.VERDICT_DO_NOT_RESTART)
    for rule in rules:
        if _matches(rule, pod, ended):
            return _BY_ACTION[rule.action](rule)
    disrupted = ("DisruptionTarget", "True") in pod.conditions
    if disrupted or pod.deleting:
        return Judgement(Outcome.PLANNED, "Disrupted" if disrupted else "Deleted")
    return Judgement(Outcome.FAILED, _reason(ended))


_BY_ACTION: Final = {
    "FailJob": lambda rule: Judgement(Outcome.FATAL, f"Rule {rule.name}"),
    "Ignore": lambda rule: Judgement(Outcome.PLANNED, f"Rule {rule.name}"),
    # Its launcher has started it again as often as it may, and has given up.
    "RestartWorker": lambda rule: Judgement(Outcome.FAILED, f"Rule {rule.name}"),
    "ReplaceWorker": lambda rule: Judgement(Outcome.FAILED, f"Rule {rule.name}", elsewhere=True),
}


def _says_stop(ended: Ended) -> bool:
    return not ended.verdict and ended.exit_code == contract.EXIT_DO_NOT_RESTART


def _matches(rule: Rule, pod: Pod, ended: Ended) -> bool:
    if rule.exit_codes is not None:
        return not pod.deleting and rule.exit_codes.match(ended.exit_code)
    return bool(rule.conditions & pod.conditions)


def _reason(ended: Ended) -> str:
    """Name a failure; a pod without a launcher can end well and yet has proved nothing."""
    if ended.verdict:
        return ended.reason or ended.verdict
    if ended.reason in ("StartError", "ContainerCannotRun") or ended.exit_code in (126, 127):
        return "LauncherMissing"
    if ended.exit_code == contract.EXIT_DONE:
        return "NoVerdict"
    return ended.reason or "Error"


def account(
    tally: Tally, pods: Iterable[Pod], policy: FailurePolicy, now: float
) -> tuple[Tally, tuple[tuple[Pod, Judgement], ...]]:
    """Count every ended pod once.

    Returns:
        The new tally, and the pods that it counts for the first time with what they mean.
    """
    pods = tuple(pods)
    fresh = tuple(
        (pod, judge(pod, pod.ended, policy.rules))
        for pod in sorted(pods, key=lambda pod: (pod.ended.at if pod.ended else 0.0, pod.slot))
        if pod.ended is not None and pod.uid not in tally.accounted
    )
    for pod, judgement in fresh:
        tally = _count(tally, pod, judgement, now)
    # Last: an end that is seen only now may be older than the window.
    tally = _forget(tally, now - policy.window_seconds)
    present = {pod.uid for pod in pods}
    accounted = (tally.accounted | {pod.uid for pod, _ in fresh}) & present
    return replace(tally, accounted=accounted), fresh


def _forget(tally: Tally, before: float) -> Tally:
    kept = tuple(incident for incident in tally.incidents if incident.time > before)
    return replace(tally, incidents=kept)


def _count(tally: Tally, pod: Pod, judgement: Judgement, now: float) -> Tally:
    match judgement.outcome:
        case Outcome.DONE:
            return replace(tally, done=tally.done | {pod.slot})
        case Outcome.PLANNED:
            return replace(tally, planned=tally.planned + 1)
    # The clock of a node may be wrong: no pod ends before it is made, nor after its end is seen.
    at = min(max(pod.ended.at if pod.ended else 0.0, pod.created), now)
    incidents = list(tally.incidents)
    for index, incident in enumerate(incidents):
        # A slot that fails twice within seconds is a crash loop, not one incident.
        if abs(incident.time - at) < INCIDENT_SECONDS and pod.slot not in incident.slots:
            incidents[index] = replace(incident, slots=(*incident.slots, pod.slot))
            break
    else:
        incidents.append(Incident(at, (pod.slot,)))
    return replace(tally, total=tally.total + 1, incidents=tuple(incidents))


def exhausted(tally: Tally, policy: FailurePolicy) -> str | None:
    """Tell in a sentence which limit is exceeded, or return None."""
    if len(tally.incidents) > policy.backoff_limit:
        return (
            f"{len(tally.incidents)} failures within {policy.window_seconds} s "
            f"exceed failurePolicy.backoffLimit {policy.backoff_limit}"
        )
    limit = policy.backoff_limit_per_index
    if limit is None:
        return None
    for slot in sorted({slot for incident in tally.incidents for slot in incident.slots}):
        count = _failures_of(slot, tally)
        if count > limit:
            return (
                f"slot {slot} failed {count} times within {policy.window_seconds} s, "
                f"more than failurePolicy.backoffLimitPerIndex {limit}"
            )
    return None


def _failures_of(slot: int, tally: Tally) -> int:
    return sum(slot in incident.slots for incident in tally.incidents)


def earliest(slot: int, pods: Iterable[Pod], tally: Tally, rules: Iterable[Rule]) -> float:
    """When a slot may be filled again, in seconds since 1970.

    The first failure of a slot is replaced at once; each further one within the window doubles
    the wait, from ten seconds to five minutes. A pod that ended without fault and without being
    asked to is not replaced sooner than ten seconds after it was made, or a script that leaves
    at once would make the operator spin. A pod that is vanishing is let vanish first: it takes a
    moment, and who looks before and who looks after it then choose the same name for the next
    one, so that even two operators make only one.
    """
    times = [incident.time for incident in tally.incidents if slot in incident.slots]
    wait = 0.0
    if len(times) > 1:
        delay = FIRST_DELAY_SECONDS * 2.0 ** min(len(times) - 2, 10)
        wait = max(times) + min(delay, MAX_DELAY_SECONDS)
    last = newest(slot, pods)
    if last is not None and last.vanishing and last.doomed_since is not None:
        return max(wait, last.doomed_since + STUCK_SECONDS)
    if last is None or last.deleting or last.ended is None:
        return wait
    if judge(last, last.ended, rules).outcome is Outcome.PLANNED:
        return max(wait, last.created + FIRST_DELAY_SECONDS)
    return wait


def newest(slot: int, pods: Iterable[Pod]) -> Pod | None:
    """The youngest pod of a slot, or None."""
    own = [pod for pod in pods if pod.slot == slot]
    return max(own, key=lambda pod: pod.incarnation, default=None)


def shunned(slot: int, pods: Iterable[Pod], rules: Iterable[Rule]) -> tuple[str, ...]:
    """Nodes that the next pod of a slot must avoid: where a rule says to replace elsewhere."""
    rules = tuple(rules)
    return tuple(
        sorted(
            {
                pod.node
                for pod in pods
                if pod.slot == slot
                and pod.ended is not None
                and pod.node
                and judge(pod, pod.ended, rules).elsewhere
            }
        )
    )
