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
MAX_GONE: Final = 3000
"""Uids kept as gone: the whole view of the largest job, and half of it again."""

MOST_NODES_BYTES: Final = 64 * 1024
"""Room for the paths of nodes: 2,000 whose names have 60 characters each, 24 of them of their own,
have 63 KB."""


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
        gone: Uids of pods whose exit is confirmed or that must not take part any more, oldest
            first.
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
        here, over = set(present), set(ended)
        seen = set(self.gone)
        lost = [uid for uid in self.known if uid not in here - over and uid not in seen]
        gone = (*self.gone, *lost, *sorted(over - seen - set(lost)))
        known = tuple(sorted(here - set(gone)))
        return replace(self, known=known, gone=_youngest(gone, here))

    def annotations(self) -> dict[str, str]:
        """The annotations of the Lease that hold this."""
        return {
            contract.RECORD_DESIRED: str(self.desired),
            contract.RECORD_MIN: str(self.minimum),
            contract.RECORD_MAX: str(self.maximum),
            contract.RECORD_GONE: _packed(self.gone),
            contract.RECORD_NODES: _packed(dict(sorted(self.nodes.items()))),
            PODS: _packed(self.known),
        }


def nodes_fit(nodes: Mapping[str, str]) -> bool:
    """Tell whether the paths of nodes leave room in the Lease for the rest."""
    return len(_packed(dict(nodes))) <= MOST_NODES_BYTES


def _youngest(gone: tuple[str, ...], here: set[str]) -> tuple[str, ...]:
    """Forget the oldest; of all only those that still exist may come back."""
    excess = len(gone) - MAX_GONE
    if excess <= 0:
        return gone
    forgotten = {uid for uid in sorted(gone, key=here.__contains__)[:excess]}
    return tuple(uid for uid in gone if uid not in forgotten)


def _packed(value: object) -> str:
    return contract.pack(json.dumps(value, separators=(",", ":")))


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

    def idle(self, uids: Iterable[str]) -> frozenset[str]:
        """Which of these pods are known to take no part; none where the view lists not all."""
        complete = self.view is not None and len(self.launchers) >= self.view.pods
        return frozenset(uids).difference(self.launchers) if complete else frozenset()


def parse_record(lease: Manifest) -> Record:
    """Read the Lease of a job; what somebody wrote wrongly counts as not written."""
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
        desired=_integer(annotations, contract.RECORD_DESIRED),
        minimum=_integer(annotations, contract.RECORD_MIN),
        maximum=_integer(annotations, contract.RECORD_MAX),
        known=_texts(text(annotations, PODS)),
        gone=_texts(text(annotations, contract.RECORD_GONE)),
        nodes=_paths(text(annotations, contract.RECORD_NODES)),
    )


def _integer(annotations: Manifest, key: str) -> int:
    value = contract.value_of(text(annotations, key))
    return value if isinstance(value, int) else -1


def _texts(written: str) -> tuple[str, ...]:
    value = contract.value_of(written)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _paths(written: str) -> dict[str, str]:
    return {node: path for node, path in _object(written).items() if isinstance(path, str)}


def _launchers(written: str) -> tuple[str, ...]:
    return tuple(text(each, "uid") for each in children({"": contract.value_of(written)}, ""))


def _object(written: str) -> Manifest:
    value = contract.value_of(written)
    return value if isinstance(value, dict) else {}


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
