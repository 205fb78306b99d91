"""Builders of what the operator's pure parts read."""

from dataclasses import replace
from typing import Any

from dssync_operator.job import Job, digest, parse_job
from dssync_operator.pod import Ended, Pod
from dssync_operator.record import Record, View, Wanted

START = 1_800_000_000.0
TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "worker"}]}}
OTHER_TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "worker", "image": "other"}]}}
BAD_TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "worker", "image": ""}]}}
"""The dry run refuses it."""


def make_spec_job(status: dict[str, Any] | None = None, **spec: Any) -> Job:
    """A job as the operator parses it; keyword arguments are fields of its spec."""
    return parse_job(
        {
            "metadata": {"namespace": "ns", "name": "demo", "uid": "job-uid", "generation": 1},
            "spec": {"template": TEMPLATE, **spec},
            "status": status or {},
        }
    )


def make_pod(slot: int = 0, incarnation: int = 0, **changes: Any) -> Pod:
    """A running pod; keyword arguments replace attributes."""
    pod = Pod(
        name=f"demo-w{slot}-{incarnation}",
        uid=f"uid-{slot}-{incarnation}",
        slot=slot,
        incarnation=incarnation,
        template_hash=digest(TEMPLATE),
        phase="Running",
        node="node-a",
        created=START,
        ready=True,
        deleting=False,
        doomed_since=None,
        vanishing=False,
        ended=None,
        held=False,
        waiting=None,
        conditions=frozenset(),
    )
    return replace(pod, **changes)


def make_end(
    code: int | None = 1, verdict: str = "", reason: str = "Error", at: float = START + 60
) -> Ended:
    """The end of a pod."""
    return Ended(at, code, verdict, reason, "")


def make_record(
    view: View | None = None, wanted: Wanted | None = None, completed: bool = False
) -> Record:
    """A Lease as the operator parses it."""
    return Record(wanted, "", view.term if view else 0, view, None, completed)
