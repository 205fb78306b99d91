"""A DSSyncJob manifest as this machine runs it: parsed, checked and typed once.

Checks are those of the API server (``schema``, ``rules``) and, after them, the few things that a
single machine cannot give: an image's own entrypoint and values that only a cluster has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from dssync import contract
from dssync.errors import ManifestError
from dssync.local import rules, schema

_CLUSTER_ONLY: Final = ("ttlSecondsAfterFinished", "topology", "managedBy")
_GPU: Final = "nvidia.com/gpu"


@dataclass(frozen=True)
class ExitCodeRule:
    """What to do with a failed pod of certain exit codes."""

    name: str
    action: str
    """FailJob, Ignore, ReplaceWorker or RestartWorker."""
    negated: bool
    """Whether the rule means all codes but these."""
    codes: frozenset[int]


@dataclass(frozen=True)
class FailurePolicy:
    """When failed pods end the job."""

    backoff_limit: int
    backoff_limit_per_slot: int | None
    window_seconds: float
    rules: tuple[ExitCodeRule, ...]

    @property
    def restarts_in_pod(self) -> int:
        """How often a launcher starts one of its workers again, where a rule lets it."""
        per_slot = self.backoff_limit_per_slot
        return self.backoff_limit if per_slot is None else per_slot

    @property
    def restart_codes(self) -> tuple[int, ...]:
        """Exit codes whose first rule lets the launcher start the worker again, ascending."""
        return tuple(code for code in range(1, 256) if self._first_action(code) == "RestartWorker")

    def _first_action(self, code: int) -> str:
        matching = (each.action for each in self.rules if (code in each.codes) != each.negated)
        return next(matching, "")


@dataclass(frozen=True)
class Container:
    """The container named ``worker``."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: Path | None
    """None: the folder that the job is run from stands for the image's own."""


@dataclass(frozen=True)
class Manifest:
    """A DSSyncJob, as far as it matters on one machine."""

    name: str
    namespace: str
    replicas: int
    min_replicas: int
    max_replicas: int
    container: Container
    variables: Mapping[str, str]
    """Variables of ``dssync.contract`` that are the same in all pods."""
    grace_seconds: float
    """Time between SIGTERM and SIGKILL."""
    active_deadline_seconds: float | None
    startup_deadline_seconds: float | None
    """How long the first world may take to form."""
    below_min_timeout_seconds: float | None
    """How long a world waits with fewer pods than the minimum; None means for ever."""
    failure_policy: FailurePolicy
    success_policy: str
    """All or Any: whose verdict Done completes the job."""
    notices: tuple[str, ...]
    """Sentences about fields that have no effect on one machine."""


def load(path: Path) -> Manifest:
    """Read a manifest from a file.

    Raises:
        ManifestError: The file cannot be read, is no YAML or holds no valid DSSyncJob.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: the manifest cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Manifest:
    """Read a manifest from YAML.

    Args:
        text: YAML with exactly one document, a DSSyncJob.
        source: Where it came from; begins the sentence of an error.

    Raises:
        ManifestError: The text is no YAML or holds no valid DSSyncJob.
    """
    document = _only_document(text, source)
    for key, expected in (
        ("apiVersion", f"{contract.GROUP}/{contract.VERSION}"),
        ("kind", contract.KIND),
    ):
        if document.get(key) != expected:
            raise ManifestError(f"{source}: {key} is {document.get(key)!r}; expected {expected}")
    completed = schema.complete(document, source)
    rules.check(completed, source)
    return _manifest(completed, source)


def _only_document(text: str, source: str) -> dict[str, object]:
    try:
        documents = [part for part in yaml.safe_load_all(text) if part is not None]
    except yaml.YAMLError as error:
        sentence = " ".join(str(error).split())
        raise ManifestError(f"{source}: the manifest is no YAML: {sentence}") from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ManifestError(
            f"{source}: the file holds {len(documents)} documents; expected exactly one DSSyncJob"
        )
    return documents[0]


def _manifest(document: Any, source: str) -> Manifest:
    metadata, spec = document["metadata"], document["spec"]
    pod = spec["template"]["spec"]
    if spec["suspend"]:
        raise ManifestError(f"{source}: spec.suspend is True; expected a job that is to run")
    elastic = spec.get("elastic", {"minReplicas": spec["replicas"]})
    index, worker = _worker(pod)
    policy = _failure_policy(spec["failurePolicy"])
    where = f"{source}: spec.template.spec.containers[{index}]"
    return Manifest(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        replicas=spec["replicas"],
        min_replicas=elastic["minReplicas"],
        max_replicas=elastic.get("maxReplicas", spec["replicas"]),
        container=_container(worker, where),
        variables=_variables(spec, policy, _gpus(worker, where)),
        grace_seconds=_seconds(pod, "terminationGracePeriodSeconds", source),
        active_deadline_seconds=spec.get("activeDeadlineSeconds"),
        startup_deadline_seconds=spec.get("startupDeadlineSeconds"),
        below_min_timeout_seconds=elastic.get("belowMinTimeoutSeconds"),
        failure_policy=policy,
        success_policy=spec["successPolicy"],
        notices=tuple(
            f"spec.{key} has no effect on one machine" for key in _CLUSTER_ONLY if key in spec
        ),
    )


def _worker(pod: Any) -> tuple[int, Any]:
    names = [container["name"] for container in pod["containers"]]
    index = names.index(contract.WORKER_CONTAINER)
    return index, pod["containers"][index]


def _container(worker: Any, where: str) -> Container:
    command, arguments = (_texts(worker, key, where) for key in ("command", "args"))
    if not command:
        raise ManifestError(
            f"{where} has no 'command'; expected one such as [dssync, run, train.py], since an "
            "image's own entrypoint is not known on this machine"
        )
    folder = worker.get("workingDir")
    if folder is not None and not Path(folder).is_dir():
        raise ManifestError(
            f"{where}.workingDir is {folder!r}; expected a folder that exists on this machine, "
            "or nothing, to run in the manifest's own"
        )
    return Container(
        command=(*command, *arguments),
        environment=_environment(worker.get("env") or [], where),
        working_directory=Path(folder) if folder is not None else None,
    )


def _texts(worker: Any, key: str, where: str) -> tuple[str, ...]:
    value = worker.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ManifestError(
            f"{where}.{key} is {value!r}; expected a list of strings (quote numbers)"
        )
    return tuple(value)


def _environment(entries: Any, where: str) -> Mapping[str, str]:
    for index, entry in enumerate(entries):
        if not _is_plain(entry):
            raise ManifestError(
                f"{where}.env[{index}] is {entry!r}; expected a name and a string as value, since "
                "values from elsewhere exist only on a cluster"
            )
    return {entry["name"]: entry.get("value", "") for entry in entries}


def _is_plain(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and "valueFrom" not in entry
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("value", ""), str)
    )


def _gpus(worker: Any, where: str) -> int:
    limits = (worker.get("resources") or {}).get("limits") or {}
    count = str(limits.get(_GPU, 0))
    if not count.isdecimal():
        raise ManifestError(
            f"{where}.resources.limits.{_GPU} is {count!r}; expected an integer of at least 0"
        )
    return int(count)


def _seconds(pod: Any, key: str, source: str) -> float:
    value = pod.get(key, 60)
    if not isinstance(value, int) or value < 0:
        raise ManifestError(
            f"{source}: spec.template.spec.{key} is {value!r}; expected an integer of at least 0"
        )
    return value


def _failure_policy(policy: Any) -> FailurePolicy:
    return FailurePolicy(
        backoff_limit=policy["backoffLimit"],
        backoff_limit_per_slot=policy.get("backoffLimitPerIndex"),
        window_seconds=policy["windowSeconds"],
        rules=tuple(_rule(rule) for rule in policy.get("rules", ()) if "onExitCodes" in rule),
    )


def _rule(rule: Any) -> ExitCodeRule:
    codes = rule["onExitCodes"]
    return ExitCodeRule(
        rule["name"], rule["action"], codes["operator"] == "NotIn", frozenset(codes["values"])
    )


def _variables(spec: Any, policy: FailurePolicy, gpus: int) -> Mapping[str, str]:
    sync, rendezvous, checkpoint = spec["sync"], spec["rendezvous"], spec.get("checkpoint", {})
    nproc, backend = spec["nprocPerNode"], sync["backend"]
    codes = policy.restart_codes
    values = {
        contract.ENV_RESTART_CODES: ",".join(map(str, codes)) or None,
        contract.ENV_MAX_RESTARTS: policy.restarts_in_pod if codes else None,
        contract.ENV_NPROC_PER_NODE: max(1, gpus) if nproc == "auto" else nproc,
        contract.ENV_GROUP_SIZE: sync.get("groupSize"),
        contract.ENV_EVERY: sync["every"],
        contract.ENV_MODE: sync["mode"],
        contract.ENV_COMMIT: sync["commit"],
        contract.ENV_SEED: sync["seed"],
        contract.ENV_BACKEND: ("nccl" if gpus else "gloo") if backend == "auto" else backend,
        contract.ENV_AVERAGE_OPTIMIZER_STATE: int(sync["averageOptimizerState"]),
        contract.ENV_JOIN_WINDOW_SECONDS: rendezvous["joinWindowSeconds"],
        contract.ENV_HEARTBEAT_MILLISECONDS: rendezvous["heartbeatMilliseconds"],
        contract.ENV_LEASE_MILLISECONDS: rendezvous["leaseMilliseconds"],
        contract.ENV_QUORUM: rendezvous["quorum"],
        contract.ENV_HANG_TIMEOUT_SECONDS: spec["health"]["hangTimeoutSeconds"],
        contract.ENV_INTERFACE: spec["network"].get("interface"),
        contract.ENV_CHECKPOINT_PATH: checkpoint.get("path"),
        contract.ENV_CHECKPOINT_INTERVAL_STEPS: checkpoint.get("intervalSteps"),
        contract.ENV_CHECKPOINT_KEEP: checkpoint.get("keep"),
    }
    return {name: str(value) for name, value in values.items() if value is not None}
