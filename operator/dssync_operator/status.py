"""What the operator knows of a job between two looks at it, and how users see it.

The status is memory and display at once. As memory it holds counters, times and latched verdicts,
which cannot be derived again from pods that are gone. Everything else is computed anew from what
exists now, so it cannot go stale. Parsing and rendering are inverse to each other; a status that
renders as before is not written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dssync_operator.job import (
    Manifest,
    child,
    children,
    format_time,
    number,
    optional,
    parse_time,
    text,
)

ACCEPTED: Final = "Accepted"
SUSPENDED: Final = "Suspended"
SCHEDULED: Final = "Scheduled"
RUNNING: Final = "Running"
RESIZING: Final = "Resizing"
DEGRADED: Final = "Degraded"
COMPLETE: Final = "Complete"
FAILED: Final = "Failed"
TERMINAL: Final = (COMPLETE, FAILED)
MAX_MESSAGE: Final = 1024


@dataclass(frozen=True)
class Condition:
    """One condition; ``since`` moves only when the truth changes."""

    true: bool
    reason: str
    message: str
    since: float
    generation: int


@dataclass(frozen=True)
class Incident:
    """Pods that failed within a few seconds of each other, which count as one failure."""

    time: float
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Tally:
    """Failures so far.

    Attributes:
        total: Pods that failed, since the beginning.
        planned: Pods that ended without fault.
        incidents: Those within the window, oldest first.
        accounted: Uids of ended pods that are in the counters and still exist.
        done: Slots whose pod ended with verdict Done; they are never filled again.
    """

    total: int = 0
    planned: int = 0
    incidents: tuple[Incident, ...] = ()
    accounted: frozenset[str] = frozenset()
    done: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Clock:
    """Times of a job, in seconds since 1970, None where they have not come.

    Attributes:
        started: When the first pod was made, or the job was last resumed.
        world_formed: When the first view after that was committed.
        below_min: Since when fewer pods run than the minimum.
        scale_down: Since when fewer pods are wanted than aimed at.
        finished: When the verdict fell.
    """

    started: float | None = None
    world_formed: float | None = None
    below_min: float | None = None
    scale_down: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class Moved:
    """The last step that was told, and since when it is the last, in seconds since 1970."""

    step: int
    since: float


@dataclass(frozen=True)
class Status:
    """Everything under ``.status``.

    Attributes:
        desired: Pods that the operator aims at; None before the first look.
        template_hash: Of the template that was last checked.
        stale_view: The view that was current when this start began, so that it is not taken for
            a new world.
        progress: The last step; None where nobody tells of steps.
        display: The part that is computed anew each time, as it is on the wire.
    """

    observed_generation: int = 0
    desired: int | None = None
    template_hash: str = ""
    stale_view: str = ""
    termination_message: str = ""
    tally: Tally = field(default_factory=Tally)
    clock: Clock = field(default_factory=Clock)
    progress: Moved | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    display: Manifest = field(default_factory=dict)

    def is_true(self, kind: str) -> bool:
        """Tell whether a condition is there and true."""
        condition = self.conditions.get(kind)
        return condition is not None and condition.true

    @property
    def finished(self) -> bool:
        """Whether a verdict fell; it never falls twice and is never taken back."""
        return any(self.is_true(kind) for kind in TERMINAL)

    def with_condition(
        self, kind: str, true: bool, reason: str, message: str, now: float
    ) -> "Status":
        """Return the status with one condition set; its time moves only with its truth."""
        old = self.conditions.get(kind)
        since = old.since if old is not None and old.true == true else float(int(now))
        new = Condition(true, reason, message[:MAX_MESSAGE], since, self.observed_generation)
        return replace(self, conditions={**self.conditions, kind: new})


def parse_status(manifest: Manifest) -> Status:
    """Read ``.status``; an empty one is that of a new job."""
    time = {key: parse_time(manifest.get(name)) for key, name in _CLOCK.items()}
    restarts = child(manifest, "restarts")
    accounted, done = manifest.get("accounted"), manifest.get("done")
    return Status(
        observed_generation=number(manifest, "observedGeneration", 0),
        desired=optional(manifest, "desiredReplicas"),
        template_hash=text(manifest, "templateHash"),
        stale_view=text(manifest, "staleView"),
        termination_message=text(manifest, "terminationMessage"),
        tally=Tally(
            total=number(restarts, "total", 0),
            planned=number(restarts, "planned", 0),
            incidents=tuple(_incident(part) for part in children(manifest, "incidents")),
            accounted=frozenset(accounted) if isinstance(accounted, list) else frozenset(),
            done=frozenset(done) if isinstance(done, list) else frozenset(),
        ),
        clock=Clock(**time),
        progress=_moved(child(manifest, "progress")),
        conditions={
            text(part, "type"): _condition(part) for part in children(manifest, "conditions")
        },
        display={key: manifest[key] for key in DISPLAY if key in manifest},
    )


DISPLAY: Final = (
    "state",
    "replicas",
    "readyReplicas",
    "activeReplicas",
    "updatedReplicas",
    "selector",
    "membership",
    "workers",
    "progress",
)
_CLOCK: Final = {
    "started": "startTime",
    "world_formed": "worldFormedTime",
    "below_min": "belowMinSince",
    "scale_down": "scaleDownSince",
    "finished": "completionTime",
}


def _moved(part: Manifest) -> Moved | None:
    step, since = optional(part, "step"), parse_time(part.get("lastUpdateTime"))
    return None if step is None or since is None else Moved(step, since)


def _incident(part: Manifest) -> Incident:
    slots = part.get("slots")
    return Incident(
        parse_time(part.get("time")) or 0.0, tuple(slots) if isinstance(slots, list) else ()
    )


def _condition(part: Manifest) -> Condition:
    return Condition(
        part.get("status") == "True",
        text(part, "reason"),
        text(part, "message"),
        parse_time(part.get("lastTransitionTime")) or 0.0,
        number(part, "observedGeneration", 0),
    )


def render_status(status: Status) -> dict[str, object]:
    """The value of ``.status`` that holds all of this."""
    tally, clock = status.tally, status.clock
    rendered: dict[str, object] = {
        "observedGeneration": status.observed_generation,
        "desiredReplicas": status.desired,
        "templateHash": status.template_hash or None,
        "staleView": status.stale_view or None,
        "terminationMessage": status.termination_message or None,
        "restarts": {
            "total": tally.total,
            "inWindow": len(tally.incidents),
            "planned": tally.planned,
        },
        "incidents": [
            {"time": format_time(incident.time), "slots": list(incident.slots)}
            for incident in tally.incidents
        ]
        or None,
        "accounted": sorted(tally.accounted) or None,
        "done": sorted(tally.done) or None,
        "conditions": [_render_condition(*item) for item in sorted(status.conditions.items())],
        **status.display,
    }
    for key, name in _CLOCK.items():
        value = getattr(clock, key)
        rendered[name] = None if value is None else format_time(value)
    return {key: value for key, value in rendered.items() if value is not None}


def _render_condition(kind: str, condition: Condition) -> dict[str, object]:
    return {
        "type": kind,
        "status": "True" if condition.true else "False",
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": format_time(condition.since),
        "observedGeneration": condition.generation,
    }
