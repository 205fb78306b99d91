"""The arbiter's record of a job: the annotations of its Lease.

The launchers own its holder, term, view and progress; the operator owns how many pods are wanted,
where nodes stand and, above all, which pods are *gone*. A launcher may treat a lost mate's exit
as confirmed only when it reads the mate's uid there, so the operator remembers in the same place
which uids it has seen (``PODS``): a pod that vanishes while no operator runs is still confirmed
afterwards.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dssync import contract
from dssync_operator.job import Manifest, child, children, number, text

PODS: Final = f"{contract.GROUP}/pods"
"""Annotation for the operator alone: JSON list of the uids of pods that are not gone."""
MAX_GONE: Final = 4000
"""Uids kept as gone; twice the largest job, so that a whole view fits. 160 KB of 256."""


@dataclass(frozen=True)
class View:
    """The launchers' current view, as far as a status tells of it."""

    term: int
    sequence: int
    pods: int
    workers: int


@dataclass(frozen=True)
class Progress:
    """How far the training is."""

    step: int
    total_steps: int | None


@dataclass(frozen=True)
class Wanted:
    """What the operator writes; equal values are never written twice.

    Attributes:
        known: Uids of pods that were seen and are not gone.
        gone: Uids of pods whose exit is confirmed, oldest first.
        nodes: Node name to zone/rack path.
    """

    desired: int
    minimum: int
    maximum: int
    known: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)

    def confirm(self, present: Iterable[str], ended: Iterable[str]) -> "Wanted":
        """Move what is known but neither present nor still running to the gone ones.

        Args:
            present: Uids of all pods that exist now.
            ended: Uids among them that have ended or that are being replaced.
        """
        running = set(present) - set(ended)
        lost = [uid for uid in self.known if uid not in running]
        seen = set(self.gone)
        over = sorted(set(ended) - seen - set(lost))
        gone = (*self.gone, *(uid for uid in lost if uid not in seen), *over)[-MAX_GONE:]
        return replace(self, known=tuple(sorted(running)), gone=gone)

    def annotations(self) -> dict[str, str]:
        """The annotations of the Lease that hold this."""
        return {
            contract.RECORD_DESIRED: str(self.desired),
            contract.RECORD_MIN: str(self.minimum),
            contract.RECORD_MAX: str(self.maximum),
            contract.RECORD_GONE: json.dumps(self.gone, separators=(",", ":")),
            contract.RECORD_NODES: json.dumps(dict(self.nodes), sort_keys=True),
            PODS: json.dumps(self.known, separators=(",", ":")),
        }


@dataclass(frozen=True)
class Record:
    """A Lease as it was read."""

    wanted: Wanted | None
    holder: str
    term: int
    view: View | None
    progress: Progress | None
    completed: bool
    launchers: tuple[str, ...] = ()
    """Uids of the pods in the view, lowest slots first; not all of them in a large job."""


def parse_record(lease: Manifest) -> Record:
    """Read the Lease of a job; what a launcher wrote wrongly counts as not written."""
    annotations = child(child(lease, "metadata"), "annotations")
    spec = child(lease, "spec")
    return Record(
        wanted=_wanted(annotations),
        holder=text(spec, "holderIdentity"),
        term=number(spec, "leaseTransitions", 0),
        view=_view(_object(text(annotations, contract.RECORD_VIEW))),
        progress=_progress(_object(text(annotations, contract.RECORD_PROGRESS))),
        completed=text(annotations, contract.RECORD_COMPLETED) not in ("", "false"),
        launchers=_launchers(text(annotations, contract.RECORD_LAUNCHERS)),
    )


def _wanted(annotations: Manifest) -> Wanted | None:
    if PODS not in annotations:
        return None
    return Wanted(
        desired=int(text(annotations, contract.RECORD_DESIRED)),
        minimum=int(text(annotations, contract.RECORD_MIN)),
        maximum=int(text(annotations, contract.RECORD_MAX)),
        known=tuple(json.loads(text(annotations, PODS))),
        gone=tuple(json.loads(text(annotations, contract.RECORD_GONE))),
        nodes=json.loads(text(annotations, contract.RECORD_NODES)),
    )


def _launchers(written: str) -> tuple[str, ...]:
    return tuple(text(each, "uid") for each in children({"": _value(written)}, ""))


def _object(written: str) -> Manifest:
    value = _value(written)
    return value if isinstance(value, dict) else {}


def _value(written: str) -> object:
    try:
        return json.loads(written) if written else None
    except ValueError:
        return None


def _view(said: Manifest) -> View | None:
    if not isinstance(said.get("sequence"), int):
        return None
    return View(*(number(said, key, 0) for key in contract.VIEW_KEYS))


def _progress(said: Manifest) -> Progress | None:
    if not isinstance(said.get(contract.PROGRESS_STEP), int):
        return None
    total = said.get(contract.PROGRESS_TOTAL)
    step = number(said, contract.PROGRESS_STEP, 0)
    return Progress(step, total if isinstance(total, int) else None)
