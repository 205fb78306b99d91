"""A manifest means the same to ``dssync local`` and to the operator."""

from typing import Any

import pytest
import yaml

from dssync.errors import ManifestError
from dssync.local import manifest as local, schema
from dssync_operator import resources
from dssync_operator.job import parse_job
from dssync_operator.plan import NewPod
from ground.bad_manifests import REFUSED
from ground.scene import make_job

SPECS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "replicas": 3,
        "elastic": {"minReplicas": 2, "maxReplicas": 6, "belowMinTimeoutSeconds": 40},
        "nprocPerNode": 2,
        "sync": {
            "backend": "gloo",
            "groupSize": 3,
            "every": 4,
            "mode": "cross",
            "commit": "strict",
            "seed": 11,
            "averageOptimizerState": True,
        },
        "rendezvous": {
            "joinWindowSeconds": 9,
            "heartbeatMilliseconds": 100,
            "leaseMilliseconds": 900,
            "quorum": "any",
        },
        "health": {"hangTimeoutSeconds": 33},
        "network": {"interface": "lo"},
        "checkpoint": {"path": "/tmp/c", "intervalSteps": 5, "keep": 2},
        "failurePolicy": {
            "backoffLimit": 3,
            "backoffLimitPerIndex": 1,
            "windowSeconds": 60,
            "rules": [
                {
                    "name": "again",
                    "action": "RestartWorker",
                    "onExitCodes": {"operator": "In", "values": [7, 137]},
                }
            ],
        },
        "activeDeadlineSeconds": 500,
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_pods_are_told_the_same_by_both(spec: dict[str, Any]) -> None:
    text = yaml.safe_dump(make_job(**spec))
    here = local.parse(text, "job.yaml")

    completed = schema.complete(yaml.safe_load(text), "job.yaml")
    job = parse_job(completed)

    there = resources.variables(job, job.spec.template, NewPod(0, 0, "Start"))

    assert {name: there.get(name) for name in here.variables} == dict(here.variables)
    assert (here.replicas, here.min_replicas, here.max_replicas) == (
        job.spec.replicas,
        job.spec.min_replicas,
        job.spec.max_replicas,
    )
    assert here.grace_seconds == float(there["DSSYNC_DRAIN_TIMEOUT_SECONDS"])
    assert here.active_deadline_seconds == job.spec.lifecycle.active_deadline_seconds
    patience = job.spec.elastic.below_min_timeout_seconds if job.spec.elastic else None
    assert here.below_min_timeout_seconds == patience
    policy = job.spec.failure_policy
    assert here.failure_policy.backoff_limit == policy.backoff_limit
    assert here.failure_policy.backoff_limit_per_slot == policy.backoff_limit_per_index
    assert here.failure_policy.window_seconds == policy.window_seconds


@pytest.mark.parametrize("spec", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_the_api_server_refuses_is_refused_locally(spec: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        local.parse(yaml.safe_dump(make_job(**spec)), "job.yaml")
