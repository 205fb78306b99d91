"""DSSyncJob manifests: defaults are filled in, and each wrong field gives one sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dssync import contract
from dssync.errors import ManifestError
from dssync.local import manifest, rules, schema

ROOT = Path(__file__).parents[3]
JOB = """
apiVersion: dssync.io/v1alpha1
kind: DSSyncJob
metadata: {name: demo}
spec:
  replicas: 4
  elastic: {minReplicas: 2, maxReplicas: 8}
  nprocPerNode: 1
  sync: {groupSize: 2}
  failurePolicy: {rules: [{name: user, action: FailJob, onExitCodes: {operator: In, values: [3]}}]}
  template:
    spec:
      containers:
      - name: worker
        command: [dssync, run, train.py]
        args: [--epochs, "3"]
        env: [{name: A, value: b}]
"""


def test_a_manifest_is_read_with_the_defaults_of_the_custom_resource() -> None:
    job = manifest.parse(JOB, "job.yaml")

    assert (job.replicas, job.min_replicas, job.max_replicas) == (4, 2, 8)
    assert job.container.command == ("dssync", "run", "train.py", "--epochs", "3")
    assert job.container.environment == {"A": "b"}
    assert job.variables[contract.ENV_GROUP_SIZE] == "2"
    assert job.variables[contract.ENV_LEASE_MILLISECONDS] == "2000"
    assert contract.ENV_CHECKPOINT_PATH not in job.variables
    assert job.failure_policy == manifest.FailurePolicy(
        backoff_limit=6,
        backoff_limit_per_slot=None,
        window_seconds=3600,
        rules=(manifest.ExitCodeRule("user", "FailJob", False, frozenset({3})),),
    )


def test_a_job_without_elastic_has_a_fixed_size() -> None:
    job = manifest.parse(JOB.replace("  elastic: {minReplicas: 2, maxReplicas: 8}\n", ""), "job")

    assert (job.min_replicas, job.max_replicas) == (4, 4)


def test_auto_counts_the_gpus_that_the_worker_asks_for() -> None:
    text = JOB.replace("nprocPerNode: 1", "nprocPerNode: auto").replace(
        "- name: worker", "- name: worker\n        resources: {limits: {nvidia.com/gpu: 4}}"
    )

    job = manifest.parse(text, "job.yaml")

    assert job.variables[contract.ENV_NPROC_PER_NODE] == "4"
    assert job.variables[contract.ENV_BACKEND] == "nccl"


def test_fields_without_effect_on_one_machine_are_named() -> None:
    job = manifest.parse(JOB.replace("replicas: 4", "replicas: 4\n  managedBy: x"), "job.yaml")

    assert job.notices == ("spec.managedBy has no effect on one machine",)


def test_null_that_tools_write_into_a_template_is_taken() -> None:
    metadata = "  template:\n    metadata: {creationTimestamp: null}\n"

    assert manifest.parse(JOB.replace("  template:\n", metadata, 1), "job.yaml")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("kind: DSSyncJob", "kind: Job", "kind is 'Job'; expected DSSyncJob"),
        ("replicas: 4", "replicas: four", "spec.replicas is 'four'; expected an integer"),
        ("replicas: 4", "replicas: 0", "spec.replicas is 0; expected at least 1"),
        ("replicas: 4", "replicas: true", "spec.replicas is True; expected an integer"),
        (
            "replicas: 4",
            "replica: 4",
            "spec has an unknown field 'replica'; expected one of replicas",
        ),
        ("  template:", "  templat:", "spec has "),
        (
            "  template:\n",
            "  template:\n    nodeSelector: {}\n",
            "spec.template has an unknown field 'nodeSelector'; expected one of ",
        ),
        ("groupSize: 2", "groupSize: 1", "spec.sync.groupSize is 1; expected at least 2"),
        ("groupSize: 2", "mode: star", "spec.sync.mode is 'star'; expected one of grid, pool"),
        ("groupSize: 2", "every: 2147483648", "spec.sync.every is 2147483648; expected at most"),
        ("Node: 1", "Node: all", "spec.nprocPerNode is 'all'; expected text that matches ^auto$"),
        ("Node: 1", "Node: [1]", "spec.nprocPerNode is [1]; expected an integer or a string"),
        ("values: [3]", "values: [3, 3]", "values is [3, 3]; expected no value twice"),
        ("- name: worker", "- {name: worker}\n      - name: worker", "only one entry with name"),
        ("dssync, run, train.py", "", "containers[0] has no 'command'; expected one such as"),
        ('"3"', "3", "containers[0].args is ['--epochs', 3]; expected a list of strings"),
        ("value: b", "valueFrom: {}", "containers[0].env[0] is {'name': 'A', 'valueFrom': {}}"),
        ("args:", "workingDir: /nowhere\n        args:", "workingDir is '/nowhere'; expected a"),
        (
            "  sync:",
            "  suspend: true\n  sync:",
            "spec.suspend is True; expected a job that is to run",
        ),
        ("metadata", "{", "the manifest is no YAML"),
        ("apiVersion", "---\na: 1\n---\napiVersion", "holds 2 documents; expected exactly one"),
    ],
)
def test_a_wrong_field_gives_one_sentence(old: str, new: str, sentence: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        manifest.parse(JOB.replace(old, new, 1), "job.yaml")

    assert str(refusal.value).startswith("job.yaml: ")
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new", "beginning"),
    [
        ("name: demo", "name: Demo", "metadata.name is 'Demo'; metadata.name must start"),
        ("minReplicas: 2", "minReplicas: 9", "spec.elastic.minReplicas is 9"),
        ("replicas: 4", "replicas: 9", "spec.replicas is 9"),
        ("groupSize: 2", "groupSize: 9", "spec.sync.groupSize is 9"),
        ("name: worker", "name: main", "spec.template.spec.containers is ['main']"),
        ("  sync:", "  rendezvous: {leaseMilliseconds: 300}\n  sync:", "spec.rendezvous.lease"),
        ("  sync:", "  metrics: {port: 29400}\n  sync:", "spec.rendezvous.port is 29400"),
        ("onExitCodes: {operator: In, values: [3]}", "", "spec.failurePolicy.rules is ['user']"),
        ("values: [3]", "values: [0]", "spec.failurePolicy.rules is ['user']"),
    ],
)
def test_each_rule_names_the_values_that_break_it(old: str, new: str, beginning: str) -> None:
    text = JOB.replace(old, new, 1).replace("FailJob, }", "FailJob}")

    with pytest.raises(ManifestError, match=re.escape(f"job.yaml: {beginning}")) as refusal:
        manifest.parse(text, "job.yaml")

    assert any(str(refusal.value).endswith(rule.message) for rule in rules.RULES)


def written_rules(part: object) -> Iterator[str]:
    """Messages of all rules in the CRD that do not compare with an old object."""
    if isinstance(part, list):
        for item in part:
            yield from written_rules(item)
    if isinstance(part, dict):
        for rule in part.get("x-kubernetes-validations", ()):
            if "oldSelf" not in rule["rule"]:
                yield rule["message"]
        for item in part.values():
            yield from written_rules(item)


def test_no_rule_of_the_custom_resource_is_missing() -> None:
    messages = set(written_rules(schema.custom_resource_schema()))

    assert {rule.message for rule in rules.RULES} == messages


def test_an_unreadable_file_gives_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        manifest.load(tmp_path / "job.yaml")


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/job.yaml")), ids=str)
def test_the_examples_are_valid(path: Path) -> None:
    assert manifest.load(path).container.command[:2] == ("dssync", "run")
