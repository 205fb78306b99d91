"""The CRD's rules that JSON Schema cannot say, for one object at a time.

Kubernetes writes them in CEL (``x-kubernetes-validations``); each is repeated here under the
very message that it has there, which is how a test sees one that is missing. Rules about a
change from an old object have no meaning here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dssync.contract import WORKER_CONTAINER
from dssync.errors import ManifestError

Document = Any
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        message: What the CRD says when the rule is broken.
        values: Returns the values that the rule compares, by path.
        holds: Tells whether the rule holds for a document with all defaults.
    """

    message: str
    values: Callable[[Document], Mapping[str, object]]
    holds: Callable[[Document], bool]


def check(document: Mapping[str, object], source: str) -> None:
    """Check a document that fits the schema against all rules.

    Raises:
        ManifestError: A rule is broken.
    """
    for rule in RULES:
        if not rule.holds(document):
            values = ", ".join(
                f"{path} is {value!r}" for path, value in rule.values(document).items()
            )
            raise ManifestError(f"{source}: {values}; {rule.message}")


def _name_holds(document: Document) -> bool:
    name = document.get("metadata", {}).get("name")
    return isinstance(name, str) and len(name) <= 48 and bool(_NAME.fullmatch(name))


def _elastic(document: Document) -> Document:
    return document["spec"].get("elastic")


def _ceiling(document: Document) -> Document:
    spec = document["spec"]
    return (spec.get("elastic") or {}).get("maxReplicas", spec["replicas"])


def _range_holds(document: Document) -> bool:
    elastic = _elastic(document)
    return not elastic or elastic["minReplicas"] <= elastic.get(
        "maxReplicas", elastic["minReplicas"]
    )


def _replicas_hold(document: Document) -> bool:
    elastic, replicas = _elastic(document), document["spec"]["replicas"]
    return not elastic or elastic["minReplicas"] <= replicas <= _ceiling(document)


def _group_holds(document: Document) -> bool:
    spec = document["spec"]
    size, nproc = spec["sync"].get("groupSize"), spec["nprocPerNode"]
    return size is None or nproc == "auto" or size <= nproc * _ceiling(document)


def _containers(document: Document) -> list[str]:
    return [container["name"] for container in document["spec"]["template"]["spec"]["containers"]]


def _lease_holds(document: Document) -> bool:
    rendezvous = document["spec"]["rendezvous"]
    return bool(rendezvous["leaseMilliseconds"] >= 2 * rendezvous["heartbeatMilliseconds"])


def _failure_rules(document: Document) -> Iterator[Document]:
    yield from document["spec"]["failurePolicy"].get("rules", ())


def _one_matcher(rule: Document) -> bool:
    return ("onExitCodes" in rule) != ("onPodConditions" in rule)


def _zero_is_no_failure(rule: Document) -> bool:
    codes = rule.get("onExitCodes", {})
    return codes.get("operator") != "In" or 0 not in codes["values"]


def _restart_sees_codes(rule: Document) -> bool:
    return rule["action"] != "RestartWorker" or "onExitCodes" in rule


def _ports_differ(document: Document) -> bool:
    spec = document["spec"]
    return bool(spec["rendezvous"]["port"] != spec["metrics"]["port"])


def _of(*paths: str) -> Callable[[Document], Mapping[str, object]]:
    """Return a reader of the values at dotted paths."""

    def read(document: Document) -> Mapping[str, object]:
        found = {}
        for path in paths:
            value = document
            for key in path.split("."):
                value = (value or {}).get(key)
            found[path] = value
        return found

    return read


def _broken_rules(holds: Callable[[Document], bool]) -> Callable[[Document], Mapping[str, object]]:
    return lambda document: {
        "spec.failurePolicy.rules": [
            rule["name"] for rule in _failure_rules(document) if not holds(rule)
        ]
    }


RULES: Final = (
    Rule(
        "metadata.name must start with a letter, hold only a-z, 0-9 and '-', and be at most "
        "48 characters: pods are named after it",
        _of("metadata.name"),
        _name_holds,
    ),
    Rule(
        "elastic.minReplicas must not exceed elastic.maxReplicas",
        _of("spec.elastic.minReplicas", "spec.elastic.maxReplicas"),
        _range_holds,
    ),
    Rule(
        "replicas must lie between elastic.minReplicas and elastic.maxReplicas",
        _of("spec.replicas", "spec.elastic.minReplicas", "spec.elastic.maxReplicas"),
        _replicas_hold,
    ),
    Rule(
        "sync.groupSize must not exceed pods x nprocPerNode: there would never be enough "
        "workers for one group",
        _of("spec.sync.groupSize", "spec.replicas", "spec.nprocPerNode"),
        _group_holds,
    ),
    Rule(
        "rendezvous.port and metrics.port must differ: the launcher listens on both",
        _of("spec.rendezvous.port", "spec.metrics.port"),
        _ports_differ,
    ),
    Rule(
        "template.spec.containers needs one container named 'worker': it runs the launcher, "
        "the others are sidecars",
        lambda document: {"spec.template.spec.containers": _containers(document)},
        lambda document: WORKER_CONTAINER in _containers(document),
    ),
    Rule(
        "set spec.network.hostNetwork instead: then pods choose free ports, and two of them fit "
        "on a node",
        _of("spec.template.spec.hostNetwork"),
        lambda document: not document["spec"]["template"]["spec"].get("hostNetwork"),
    ),
    Rule(
        "rendezvous.leaseMilliseconds must be at least twice heartbeatMilliseconds: one late "
        "heartbeat is no death",
        _of("spec.rendezvous.leaseMilliseconds", "spec.rendezvous.heartbeatMilliseconds"),
        _lease_holds,
    ),
    Rule(
        "a rule of failurePolicy needs exactly one of onExitCodes and onPodConditions",
        _broken_rules(_one_matcher),
        lambda document: all(map(_one_matcher, _failure_rules(document))),
    ),
    Rule(
        "onExitCodes.values must not hold 0 with operator In: 0 is no failure",
        _broken_rules(_zero_is_no_failure),
        lambda document: all(map(_zero_is_no_failure, _failure_rules(document))),
    ),
    Rule(
        "action RestartWorker needs onExitCodes: the launcher, which restarts the worker, sees no "
        "conditions of its pod",
        _broken_rules(_restart_sees_codes),
        lambda document: all(map(_restart_sees_codes, _failure_rules(document))),
    ),
)
