"""Specs that must be refused: name of the case, fields of the spec, part of the sentence."""

from typing import Any

WORKER = {"name": "worker", "image": "example/trainer"}


def template(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(containers)}}


def rule(**fields: Any) -> dict[str, Any]:
    return {"failurePolicy": {"rules": [{"name": "r", "action": "FailJob", **fields}]}}


def codes(operator: str, *values: int) -> dict[str, Any]:
    return {"onExitCodes": {"operator": operator, "values": list(values)}}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no pods", {"replicas": 0}, "spec.replicas in body should be greater than or equal to 1"),
    ("too many pods", {"replicas": 2001}, "should be less than or equal to 2000"),
    ("text for a number", {"replicas": "three"}, "must be of type integer"),
    (
        "min above max",
        {"elastic": {"minReplicas": 3, "maxReplicas": 2}},
        "elastic.minReplicas must not exceed elastic.maxReplicas",
    ),
    ("below min", {"replicas": 1, "elastic": {"minReplicas": 2}}, "replicas must lie between"),
    ("above max", {"replicas": 9, "elastic": {"maxReplicas": 4}}, "replicas must lie between"),
    ("min of zero", {"elastic": {"minReplicas": 0}}, "spec.elastic.minReplicas"),
    (
        "negative window",
        {"elastic": {"stabilizationSeconds": -1}},
        "spec.elastic.stabilizationSeconds",
    ),
    ("no processes", {"nprocPerNode": 0}, "spec.nprocPerNode"),
    ("unknown count", {"nprocPerNode": "many"}, "spec.nprocPerNode"),
    ("unknown backend", {"sync": {"backend": "mpi"}}, 'supported values: "auto", "gloo", "nccl"'),
    ("unknown mode", {"sync": {"mode": "ring"}}, 'supported values: "grid"'),
    ("unknown commit", {"sync": {"commit": "maybe"}}, 'supported values: "relaxed", "strict"'),
    ("group of one", {"sync": {"groupSize": 1}}, "spec.sync.groupSize"),
    (
        "group larger than the job",
        {"replicas": 2, "nprocPerNode": 2, "sync": {"groupSize": 5}},
        "sync.groupSize must not exceed pods x nprocPerNode",
    ),
    ("rounds of no steps", {"sync": {"every": 0}}, "spec.sync.every"),
    ("negative seed", {"sync": {"seed": -1}}, "spec.sync.seed"),
    (
        "unknown rendezvous",
        {"rendezvous": {"mode": "Magic"}},
        'supported values: "Lease", "Static"',
    ),
    ("no port", {"rendezvous": {"port": 0}}, "spec.rendezvous.port"),
    ("port too high", {"metrics": {"port": 65536}}, "spec.metrics.port"),
    (
        "one port for two servers",
        {"metrics": {"port": 29400}},
        "rendezvous.port and metrics.port must differ",
    ),
    (
        "lease shorter than two heartbeats",
        {"rendezvous": {"heartbeatMilliseconds": 2000}},
        "must be at least twice heartbeatMilliseconds",
    ),
    ("unknown quorum", {"rendezvous": {"quorum": "all"}}, 'supported values: "majority", "any"'),
    ("negative limit", {"failurePolicy": {"backoffLimit": -1}}, "spec.failurePolicy.backoffLimit"),
    (
        "failure window too short for the back-off",
        {"failurePolicy": {"windowSeconds": 59}},
        "spec.failurePolicy.windowSeconds",
    ),
    ("rule without matcher", rule(), "exactly one of onExitCodes and onPodConditions"),
    (
        "rule with two matchers",
        rule(**codes("In", 1), onPodConditions=[{"type": "X"}]),
        "exactly one of onExitCodes and onPodConditions",
    ),
    (
        "restart on a condition",
        rule(action="RestartWorker", onPodConditions=[{"type": "X"}]),
        "action RestartWorker needs onExitCodes",
    ),
    ("rule on success", rule(**codes("In", 0)), "must not hold 0 with operator In"),
    ("unknown operator", rule(**codes("Near", 1)), 'supported values: "In", "NotIn"'),
    ("unknown action", rule(action="Panic", **codes("In", 1)), 'supported values: "FailJob"'),
    ("code beyond a byte", rule(**codes("In", 256)), "should be less than or equal to 255"),
    (
        "unknown success policy",
        {"successPolicy": "Most"},
        'supported values: "All", "Any", "Coordinator"',
    ),
    ("unknown clean-up", {"cleanPodPolicy": "Some"}, 'supported values: "None", "Running", "All"'),
    ("deadline of zero", {"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    ("interface with a space", {"network": {"interface": "eth 0"}}, "spec.network.interface"),
    (
        "checkpoint without path",
        {"checkpoint": {"keep": 3}},
        "spec.checkpoint.path: Required value",
    ),
    ("topology without keys", {"topology": {"keys": []}}, "spec.topology.keys"),
    ("no containers", {"template": template()}, "spec.template.spec.containers"),
    ("no worker", {"template": template({"name": "main"})}, "one container named 'worker'"),
    ("nameless container", {"template": template({"image": "x"})}, "name: Required value"),
    ("two of one name", {"template": template(WORKER, WORKER)}, "Duplicate value"),
    (
        "network of the host in the template",
        {"template": {"spec": {"hostNetwork": True, "containers": [WORKER]}}},
        "set spec.network.hostNetwork instead",
    ),
]
